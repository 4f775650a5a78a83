// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
)

// TestDoorsThatAreOpen: a service that lets in who has no certificate is not served,
// however right its own is.
func TestDoorsThatAreOpen(t *testing.T) {
	for name, c := range map[string]struct{ profile, flag string }{
		"verifier":  {keylime.Verifier, "-open"},
		"registrar": {keylime.Registrar, "-open"},
		"agent":     {keylime.Agent, "-lax"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.installer.Outage = 2 * time.Second
			items := []Item{h.item(name, c.profile)}
			h.must(h.renew(items...))
			h.extra[c.profile] = []string{c.flag}
			if err := h.renew(h.item(name, c.profile)); !errors.Is(err, probe.ErrOpen) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// checkRefusals: Keylime's own verifier and registrar refuse who has no certificate,
// and who has one for servers only; that both let anybody shake hands is not taken
// for a refusal.
func (h *host) checkRefusals() {
	h.t.Helper()
	right := map[string]bool{}
	for _, finding := range h.installer.Verify(h.t.Context(), h.keylimeItems()) {
		right[finding.Certificate+": "+finding.Check] = finding.Err == nil
	}
	for _, name := range []string{"verifier", "registrar"} {
		for _, check := range []string{checkServed, checkNobody, checkOwn, checkClient} {
			if !right[name+": "+check] {
				h.t.Errorf("%s: %s: not asked, or wrong", name, check)
			}
		}
		leaf, err := keypair.ParseCertificates([]byte(h.read(certs + "/" + name + ".crt")))
		h.must(err)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port("keylime-"+name)))
		target := probe.Target{Address: address, Leaf: leaf[0], Bundle: h.ca.Bundle()}
		if err := probe.Demands(h.t.Context(), target); !errors.Is(err, probe.ErrOpen) {
			h.t.Errorf("%s demands a certificate in the handshake: %v", name, err)
		}
	}
}

// TestRefusedSetIsKept: of a set that was not served, certificates are kept to look
// at, and keys are not; one such set at most.
func TestRefusedSetIsKept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 2 * time.Second
	h.must(h.renew(h.all()...))
	for _, want := range []string{"refused-000002", "refused-000003"} {
		items := h.all()
		serial := pairOf(t, items[0]).Leaf().SerialNumber
		h.verifierStart(items, "-cert", "/nonexistent")
		if err := h.renew(items...); err == nil {
			t.Fatal("served")
		}
		var kept []string
		for _, name := range h.names("var/lib/omen-agent/keylime") {
			if strings.HasPrefix(name, "refused-") {
				kept = append(kept, name)
			}
		}
		if !slices.Equal(kept, []string{want}) {
			t.Fatalf("kept: %v", kept)
		}
		folder := "var/lib/omen-agent/keylime/" + want
		for path, text := range h.snapshot(folder) {
			if strings.HasSuffix(path, ".key") || strings.Contains(text, "PRIVATE KEY") {
				t.Errorf("a key is kept: %s", path)
			}
		}
		chain, err := keypair.ParseCertificates([]byte(h.read(folder + "/" + items[0].Name + ".crt")))
		if err != nil || len(chain) == 0 || chain[0].SerialNumber.Cmp(serial) != 0 {
			t.Errorf("%s.crt is not the refused one: %v", items[0].Name, err)
		}
	}
	h.must(h.renew(h.all()...))
}

func pairOf(t *testing.T, item Item) *keypair.Pair {
	t.Helper()
	p, err := keypair.Parse(item.Chain, item.Key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h *host) names(folder string) []string {
	h.t.Helper()
	entries, err := os.ReadDir(h.path(folder))
	h.must(err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
