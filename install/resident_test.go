// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"funlab.casa/omen/install/internal/testca"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
	"funlab.casa/omen/tss2"
)

// chip is a TPM that is opened for each use, as the agent does.
type chip struct {
	t     *testing.T
	sim   *tpmsim.TPM
	times int // that it signed
}

func (c *chip) use(ctx context.Context, fn func(storage *tpm.Storage) error) error {
	opened, err := tpm.Open(ctx, tpm.Config{Device: c.sim.Device()})
	if err != nil {
		return err
	}
	storage, err := opened.Storage(ctx, nil)
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	return errors.Join(fn(storage), storage.Close(ctx), opened.Close())
}

// key makes a key and gives its file.
func (c *chip) key() (text []byte) {
	c.t.Helper()
	err := c.use(c.t.Context(), func(storage *tpm.Storage) error {
		key, err := issuer.NewKey(c.t.Context(), issuer.ModeResident, storage)
		if err != nil {
			return err
		}
		private, err := key.PEM()
		text = private.Reveal()
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func (c *chip) sign(ctx context.Context, key, digest []byte) (signature []byte, err error) {
	c.times++
	err = c.use(ctx, func(storage *tpm.Storage) error {
		signer, err := issuer.NewSigners(storage).Open(ctx, key)
		if err == nil {
			signature, err = signer.Sign(nil, digest, crypto.SHA256)
		}
		return err
	})
	return signature, err
}

// inTPM gives an item a key that is in the TPM.
func (h *host) inTPM(item Item, c *chip) Item {
	h.t.Helper()
	item.Key = c.key()
	parsed, err := tss2.Parse(item.Key)
	if err != nil {
		h.t.Fatal(err)
	}
	public, err := parsed.PublicKey()
	if err != nil {
		h.t.Fatal(err)
	}
	usages := testca.Client()
	if item.Profile != keylime.Tenant {
		usages = testca.Server()
	}
	item.Chain = h.ca.IssueOver(h.t, testca.Want{Name: item.Name + ".keylime.test", IPs: []string{"127.0.0.1"}, Usages: usages}, public)
	return item
}

// TestClientKeyInTheTPM: the tenant's key is in the TPM. Its file is installed as it
// is, the probe's client certificate is signed for by the TPM, the status says where
// the key is, and another certificate's renewal carries it over.
func TestClientKeyInTheTPM(t *testing.T) {
	h, c := newHost(t), &chip{t: t, sim: tpmsim.Start(t)}
	h.installer.Sign = c.sign
	verifier, tenant := h.item("verifier", keylime.Verifier), h.inTPM(h.item("tenant", keylime.Tenant), c)
	h.must(h.renew(verifier, tenant))
	if got := h.read(certs + "/tenant.key"); got != string(tenant.Key) {
		t.Error("another key file than was given is installed")
	}
	if mode, uid := h.mode(certs + "/tenant.key"); mode != 0o600 || uid != serviceUID {
		t.Errorf("its file: %o of %d", mode, uid)
	}
	if c.times == 0 {
		t.Error("the service was not asked with the client certificate")
	}
	current, err := h.installer.Current()
	h.must(err)
	for _, found := range current.Certificates {
		if want := map[string]string{"tenant": KeyInTPM, "verifier": KeyInFile}[found.Name]; found.KeyPlace != want || found.NotGiven {
			t.Errorf("%s: key in %q", found.Name, found.KeyPlace)
		}
	}
	before := c.times
	h.must(h.renew(carried([]Item{h.item("verifier", keylime.Verifier), tenant}, "verifier")...))
	if got := h.read(certs + "/tenant.key"); got != string(tenant.Key) || c.times == before {
		t.Errorf("not carried over, or not used: %d signatures", c.times-before)
	}
	for _, finding := range h.installer.Verify(t.Context(), []Item{verifier, tenant}) {
		if finding.Err != nil {
			t.Errorf("%s: %s: %v", finding.Certificate, finding.Check, finding.Err)
		}
	}
}

// TestNobodySigns: without a TPM the probe says why it cannot ask, and the set that
// is not proven is taken back.
func TestNobodySigns(t *testing.T) {
	h, c := newHost(t), &chip{t: t, sim: tpmsim.Start(t)}
	err := h.renew(h.item("verifier", keylime.Verifier), h.inTPM(h.item("tenant", keylime.Tenant), c))
	if err == nil || !strings.Contains(err.Error(), errNoTPM.Error()) { // crypto/tls keeps its text only
		t.Errorf("got %v", err)
	}
	if current, err := h.installer.Current(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("installed: %v, %v", current, err)
	}
}

func TestResidentPair(t *testing.T) {
	h := &host{t: t, ca: testca.New(t, "book")}
	c := &chip{t: t, sim: tpmsim.Start(t)}
	item := h.inTPM(Item{Name: "tenant", Profile: keylime.Tenant}, c)
	found, err := parsePair(item.Chain, item.Key)
	if err != nil {
		t.Fatal(err)
	}
	if key, resident := found.signer.(*residentKey); !resident || !bytes.Equal(key.text, item.Key) || !bytes.Equal(found.key, item.Key) {
		t.Error("not taken for a key in the TPM, or not as it was given")
	}
	block, _ := pem.Decode(item.Key)
	parsed, err := tss2.Parse(item.Key)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Public = append(bytes.Clone(parsed.Public), 0)
	long, err := parsed.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"another key":         c.key(),
		"two of them":         append(bytes.Clone(item.Key), item.Key...),
		"a label, no key":     pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: []byte("x")}),
		"cut":                 pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: block.Bytes[:len(block.Bytes)-1]}),
		"trailing bytes":      pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: append(bytes.Clone(block.Bytes), 0)}),
		"a long public half":  long,
		"a plain key's label": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes}),
	} {
		_, err := parsePair(item.Chain, text)
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), string(text[40:80])) {
			t.Errorf("%s: shown in %v", name, err)
		}
	}
}

// TestResidentKeyRefusesOtherDigests before the TPM is asked.
func TestResidentKeyRefusesOtherDigests(t *testing.T) {
	key := &residentKey{ctx: t.Context(), sign: func(context.Context, []byte, []byte) ([]byte, error) { return []byte("signed"), nil }}
	if _, err := key.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("SHA-384 was taken to the TPM")
	}
	if got, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil || string(got) != "signed" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (&residentKey{}).Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, errNoTPM) {
		t.Errorf("got %v", err)
	}
}
