// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/keylime"
)

// TestSurvey finds everything that is in the way, where an installation ends with the
// first, and changes nothing.
func TestSurvey(t *testing.T) {
	h := newHost(t)
	registrar, tenant := h.item("registrar", keylime.Registrar), h.item("tenant", keylime.Tenant)
	h.must(h.renew(registrar, tenant))
	items := []Item{registrar, tenant, {Name: "verifier", Profile: keylime.Verifier}}
	good := h.installer.Survey(t.Context(), items[:2])
	if len(good.Services) != 1 || len(good.Settings) != 0 || len(good.Errs) != 0 {
		t.Fatalf("%+v", good)
	}
	if s := good.Services[0]; s.Certificate != "registrar" || s.Missing != nil || s.Alive != nil || s.Startable != nil || s.Address == "" || !strings.HasSuffix(s.Service, "keylime_registrar") {
		t.Errorf("%+v", s)
	}
	h.write("etc/keylime/tenant.conf.d/99.conf", "[tenant]\nclient_cert = x\n", 0o444)
	h.write("etc/keylime/registrar.conf.d/99.conf", "[registrar]\nserver_cert = x\n", 0o444)
	before := h.snapshot(".")
	h.stopAll()
	bad := h.installer.Survey(t.Context(), items)
	if len(bad.Services) != 2 || len(bad.Settings) != 2 {
		t.Errorf("%+v", bad)
	}
	for _, s := range bad.Services {
		if s.Profile == keylime.Verifier && s.Missing == nil || s.Profile == keylime.Registrar && s.Alive == nil {
			t.Errorf("%+v", s)
		}
	}
	for _, f := range bad.Settings {
		if !f.Stops || !errors.Is(f.Err, keylime.ErrOverridden) {
			t.Errorf("%+v", f)
		}
	}
	if diff := cmp.Diff(before, h.snapshot(".")); diff != "" {
		t.Error(diff)
	}
}

// TestInspect judges each certificate by itself.
func TestInspect(t *testing.T) {
	h := newHost(t)
	tenant, client := h.item("tenant", keylime.Tenant), h.item("registrar", keylime.Registrar)
	if _, err := h.installer.Inspect([]Item{tenant}); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("nothing is installed: %v", err)
	}
	h.must(h.renew(tenant))
	inspect := func() Inspected {
		t.Helper()
		found, err := h.installer.Inspect([]Item{tenant, client})
		if err != nil || len(found) != 2 || !errors.Is(found[1].Missing, ErrNotInstalled) {
			t.Fatalf("%+v, %v", found, err)
		}
		return found[0]
	}
	if got := inspect(); got.Missing != nil || got.Usage != nil || got.Pair != nil || got.Chain != nil || got.CommonName != "tenant.keylime.test" {
		t.Errorf("%+v", got)
	}
	other := h.item("tenant", keylime.Tenant)
	h.write("var/lib/omen-agent/keylime/current/tenant.crt", string(client.Chain), 0o644)
	if got := inspect(); got.Usage == nil || got.Pair == nil {
		t.Errorf("another's certificate: %+v", got)
	}
	h.write("var/lib/omen-agent/keylime/current/tenant.crt", string(other.Chain), 0o644)
	h.write("var/lib/omen-agent/keylime/current/clients-ca.crt", "", 0o644)
	if got := inspect(); got.Chain == nil || got.Pair == nil || got.Usage != nil {
		t.Errorf("without a root: %+v", got)
	}
	h.must(os.WriteFile(h.path("var/lib/omen-agent/keylime/current/tenant.crt"), []byte("x"), 0o644))
	if found, err := h.installer.Inspect([]Item{tenant}); err != nil || found[0].Missing == nil {
		t.Errorf("no certificate: %+v, %v", found, err)
	}
}
