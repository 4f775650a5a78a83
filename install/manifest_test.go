// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/keylime"
)

func TestChangesBySomebodyElseAreNamed(t *testing.T) {
	at := func(name string) string { return "var/lib/omen-agent/keylime/gen-000001/" + name }
	for name, row := range map[string]struct {
		bend func(h *host)
		want Damage
	}{
		"changed":   {func(h *host) { h.write(at("verifier.crt"), "x", 0o644) }, Damage{File: "verifier.crt", Certificate: "verifier", Harm: Changed}},
		"key":       {func(h *host) { h.write(at("tenant.key"), h.read(at("registrar.key")), 0o600) }, Damage{File: "tenant.key", Certificate: "tenant", Harm: Changed}},
		"removed":   {func(h *host) { h.must(os.Remove(h.path(at("registrar.key")))) }, Damage{File: "registrar.key", Certificate: "registrar", Harm: Missing}},
		"added":     {func(h *host) { h.write(at("notes.txt"), "x", 0o644) }, Damage{File: "notes.txt", Certificate: "notes", Harm: Added}},
		"link":      {func(h *host) { h.swap(at("verifier.key"), "/etc/shadow") }, Damage{File: "verifier.key", Certificate: "verifier", Harm: Changed}},
		"hard link": {func(h *host) { h.must(os.Link(h.path(at("verifier.key")), h.path("var/x"))) }, Damage{File: "verifier.key", Certificate: "verifier", Harm: Changed}},
		"CA file":   {func(h *host) { h.write(at(keylime.BundleFile), "", 0o644) }, Damage{File: keylime.BundleFile, Harm: Changed}},
		"manifest":  {func(h *host) { h.write(at(generation.ManifestName), "{}", 0o600) }, Damage{File: generation.ManifestName, Harm: Changed}},
		"no list":   {func(h *host) { h.must(os.Remove(h.path(at(generation.ManifestName)))) }, Damage{File: generation.ManifestName, Harm: Missing}},
		"mode":      {func(h *host) { h.must(os.Chmod(h.path(at("verifier.key")), 0o644)) }, Damage{File: "verifier.key", Certificate: "verifier", Harm: Reowned, Mended: true}},
		"owner":     {func(h *host) { h.chown(at("registrar.key"), 0) }, Damage{File: "registrar.key", Certificate: "registrar", Harm: Reowned, Mended: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			items := h.all()
			h.must(h.renew(items...))
			row.bend(h)
			current, err := h.installer.Current()
			seen := row.want
			seen.Mended = false
			if err != nil || !slices.Contains(current.Damage, seen) {
				t.Errorf("current: %+v, %v", current, err)
			}
			if findings := h.installer.checkUnchanged(); len(findings) != 1 || findings[0].Err == nil {
				t.Errorf("verify: %v", findings)
			}
			if got, err := h.installer.Repair(); err != nil || !slices.Equal(got, []Damage{row.want}) {
				t.Errorf("repair: %+v, %v", got, err)
			}
			if got, err := h.installer.Damage(); err != nil || (len(got) == 0) != row.want.Mended {
				t.Errorf("afterwards: %+v, %v", got, err)
			}
			h.must(h.renew(h.all()...)) // and it stops no renewal
			if got, err := h.installer.Damage(); err != nil || len(got) > 0 {
				t.Errorf("after a renewal: %+v, %v", got, err)
			}
		})
	}
}

// swap puts a link in a file's place.
func (h *host) swap(name, target string) {
	h.t.Helper()
	h.must(os.Remove(h.path(name)))
	h.must(os.Symlink(target, h.path(name)))
}

func TestChangedCertificateIsNotCarried(t *testing.T) {
	at := func(name string) string { return certs + "/" + name }
	for name, row := range map[string]struct {
		bend func(h *host)
		want []string // to be issued anew beside the verifier
	}{
		"certificate": {func(h *host) { h.write(at("registrar.crt"), string(h.ca.RootPEM), 0o644) }, []string{"registrar"}},
		"key":         {func(h *host) { h.must(os.Remove(h.path(at("tenant.key")))) }, []string{"tenant"}},
		"CA file":     {func(h *host) { h.write(at("ca.crt"), string(h.ca.RootPEM), 0o644) }, []string{"verifier-client", "registrar", "tenant"}},
		"manifest":    {func(h *host) { h.must(os.Remove(h.path(at(generation.ManifestName)))) }, []string{"verifier-client", "registrar", "tenant"}},
		"mode alone":  {func(h *host) { h.must(os.Chmod(h.path(at("registrar.key")), 0o666)) }, nil},
		"added":       {func(h *host) { h.write(at("site.pem"), string(h.ca.RootPEM), 0o644) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			all := h.all()
			h.must(h.renew(all...))
			row.bend(h)
			items := carried(h.all(), "verifier")
			spoiled, err := h.installer.Spoiled(t.Context(), items)
			h.must(err)
			var names []string
			for _, s := range spoiled {
				t.Log(s.Err)
				names = append(names, s.Certificate)
			}
			if diff := cmp.Diff(row.want, names); diff != "" {
				t.Fatalf("to be issued anew: %s", diff)
			}
			before, etc := h.installedSerial("verifier"), h.snapshot("etc")
			if err := h.renew(items...); errors.Is(err, ErrSpoiled) != (row.want != nil) {
				t.Fatalf("got %v", err)
			}
			if row.want != nil {
				if h.installedSerial("verifier") != before || cmp.Diff(etc, h.snapshot("etc")) != "" {
					t.Error("something changed")
				}
				for at := range items {
					if slices.Contains(row.want, items[at].Name) {
						items[at] = h.item(items[at].Name, items[at].Profile)
					}
				}
				h.must(h.renew(items...))
			}
			if mode, uid := h.mode(at("registrar.key")); mode != 0o600 || uid != serviceUID {
				t.Errorf("key: %o of %d", mode, uid)
			}
			if h.installedSerial("verifier") == before {
				t.Error("not renewed")
			}
		})
	}
}
