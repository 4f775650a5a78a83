// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"strings"
	"testing"

	"funlab.casa/omen/install/internal/testtpm"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/test/testca"
	"funlab.casa/omen/tss2"
)

// inTPM gives an item a key that is in the TPM.
func (h *host) inTPM(item Item, c *testtpm.TPM) Item {
	h.t.Helper()
	item.Key = c.Key()
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
	h, c := newHost(t), testtpm.Start(t)
	h.installer.Sign = c.Sign
	verifier, tenant := h.item("verifier", keylime.Verifier), h.inTPM(h.item("tenant", keylime.Tenant), c)
	h.must(h.renew(verifier, tenant))
	if got := h.read(certs + "/tenant.key"); got != string(tenant.Key) {
		t.Error("another key file than was given is installed")
	}
	if mode, uid := h.mode(certs + "/tenant.key"); mode != 0o600 || uid != serviceUID {
		t.Errorf("its file: %o of %d", mode, uid)
	}
	if c.Signed == 0 {
		t.Error("the service was not asked with the client certificate")
	}
	current, err := h.installer.Current()
	h.must(err)
	for _, found := range current.Certificates {
		if want := map[string]string{"tenant": KeyInTPM, "verifier": KeyInFile}[found.Name]; found.KeyPlace != want || found.NotGiven {
			t.Errorf("%s: key in %q", found.Name, found.KeyPlace)
		}
	}
	before := c.Signed
	h.must(h.renew(carried([]Item{h.item("verifier", keylime.Verifier), tenant}, "verifier")...))
	if got := h.read(certs + "/tenant.key"); got != string(tenant.Key) || c.Signed == before {
		t.Errorf("not carried over, or not used: %d signatures", c.Signed-before)
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
	h, c := newHost(t), testtpm.Start(t)
	err := h.renew(h.item("verifier", keylime.Verifier), h.inTPM(h.item("tenant", keylime.Tenant), c))
	if err == nil || !strings.Contains(err.Error(), keypair.ErrNoTPM.Error()) { // crypto/tls keeps its text only
		t.Errorf("got %v", err)
	}
	if current, err := h.installer.Current(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("installed: %v, %v", current, err)
	}
}
