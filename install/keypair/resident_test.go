// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"bytes"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"funlab.casa/omen/install/internal/testtpm"
	"funlab.casa/omen/test/testca"
	"funlab.casa/omen/tss2"
)

func TestResidentPair(t *testing.T) {
	c := testtpm.Start(t)
	given := c.Key()
	parsed, err := tss2.Parse(given)
	if err != nil {
		t.Fatal(err)
	}
	public, err := parsed.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := testca.New(t, "book").IssueOver(t, testca.Want{Name: "tenant.keylime.test", Usages: testca.Client()}, public)
	found, err := Parse(chain, given)
	if err != nil {
		t.Fatal(err)
	}
	if key, resident := found.Signer.(*Resident); !resident || !bytes.Equal(key.text, given) || !bytes.Equal(found.Key, given) {
		t.Error("not taken for a key in the TPM, or not as it was given")
	}
	block, _ := pem.Decode(given)
	parsed.Public = append(bytes.Clone(parsed.Public), 0)
	long, err := parsed.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"another key":         c.Key(),
		"two of them":         append(bytes.Clone(given), given...),
		"a label, no key":     pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: []byte("x")}),
		"cut":                 pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: block.Bytes[:len(block.Bytes)-1]}),
		"trailing bytes":      pem.EncodeToMemory(&pem.Block{Type: tss2.Label, Bytes: append(bytes.Clone(block.Bytes), 0)}),
		"a long public half":  long,
		"a plain key's label": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes}),
	} {
		_, err := Parse(chain, text)
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), string(text[40:80])) {
			t.Errorf("%s: shown in %v", name, err)
		}
	}
}

// TestResidentKeyRefusesOtherDigests before the TPM is asked.
func TestResidentKeyRefusesOtherDigests(t *testing.T) {
	key := &Resident{ctx: t.Context(), sign: func(context.Context, []byte, []byte) ([]byte, error) { return []byte("signed"), nil }}
	if _, err := key.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("SHA-384 was taken to the TPM")
	}
	if got, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil || string(got) != "signed" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (&Resident{}).Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrNoTPM) {
		t.Errorf("got %v", err)
	}
}
