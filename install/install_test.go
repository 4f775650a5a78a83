// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

func asError(err error, target any) bool { return errors.As(err, target) }

// all is the set of the host that the seed calls spire.
func (h *host) all() []Item {
	return []Item{
		h.item("verifier", keylime.Verifier), h.item("verifier-client", keylime.VerifierClient),
		h.item("registrar", keylime.Registrar), h.item("tenant", keylime.Tenant),
	}
}

func carried(items []Item, but string) []Item {
	var result []Item
	for _, item := range items {
		if item.Name != but {
			item.Chain, item.Key = nil, nil
		}
		result = append(result, item)
	}
	return result
}

func TestFirstInstallation(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	for name, want := range map[string]struct {
		mode os.FileMode
		uid  int
	}{
		"var/lib/omen-agent":                              {0o711, 0},
		"var/lib/omen-agent/keylime":                      {0o711, 0},
		"var/lib/omen-agent/install.lock":                 {0o600, 0},
		"var/lib/omen-agent/keylime/gen-000001":           {0o711, 0},
		certs + "/verifier.crt":                           {0o644, 0},
		certs + "/verifier.key":                           {0o600, serviceUID},
		certs + "/registrar.key":                          {0o600, serviceUID},
		certs + "/tenant.key":                             {0o600, serviceUID},
		certs + "/verifier-client.key":                    {0o600, serviceUID},
		certs + "/ca.crt":                                 {0o644, 0},
		"etc/keylime/verifier.conf.d":                     {0o500, serviceUID},
		"etc/keylime/verifier.conf.d/50-omen.conf":        {0o440, serviceUID},
		"etc/keylime/tenant.conf.d/" + keylime.DropInFile: {0o440, serviceUID},
	} {
		if mode, uid := h.mode(name); mode != want.mode || uid != want.uid {
			t.Errorf("%s: %o of %d, want %o of %d", name, mode, uid, want.mode, want.uid)
		}
	}
	target, err := os.Readlink(h.path("etc/keylime/certs"))
	if h.must(err); target != "/var/lib/omen-agent/keylime/current" {
		t.Errorf("link to %q", target)
	}
	for _, name := range []string{"/ca.crt", "/clients-ca.crt"} {
		if got := h.read(certs + name); got != string(h.ca.Bundle()) {
			t.Errorf("%s is not intermediate and root:\n%s", name, got)
		}
	}
	for _, profile := range []string{keylime.Verifier, keylime.Registrar} {
		if got, want := h.servedSerial(profile), h.installedSerial(strings.TrimPrefix(profile, "keylime-")); got != want {
			t.Errorf("%s serves %s, installed is %s", profile, got, want)
		}
	}
	for _, finding := range h.installer.Verify(t.Context(), h.all()) {
		if finding.Err != nil {
			t.Errorf("%s: %s: %v", finding.Certificate, finding.Check, finding.Err)
		}
	}
}

func TestRenewalKeepsTwoGenerations(t *testing.T) {
	h := newHost(t)
	var serials []string
	for range 4 {
		h.must(h.renew(h.all()...))
		serials = append(serials, h.servedSerial(keylime.Verifier))
	}
	if serials[2] == serials[3] {
		t.Error("the renewed certificate is not served")
	}
	names, err := os.ReadDir(h.path("var/lib/omen-agent/keylime"))
	h.must(err)
	var left []string
	for _, entry := range names {
		left = append(left, entry.Name())
	}
	if want := []string{"current", "found", "gen-000003", "gen-000004"}; !slices.Equal(left, want) {
		t.Errorf("left on disk: %v", left)
	}
}

func TestOneCertificateRenewedTheOthersCarried(t *testing.T) {
	h := newHost(t)
	items := h.all()
	h.must(h.renew(items...))
	verifier, registrar := h.installedSerial("verifier"), h.installedSerial("registrar")
	pid := h.read("run/keylime_registrar.pid")

	items[0] = h.item("verifier", keylime.Verifier)
	h.must(h.renew(carried(items, "verifier")...))
	if h.installedSerial("verifier") == verifier {
		t.Error("verifier was not renewed")
	}
	if h.installedSerial("registrar") != registrar || h.read("run/keylime_registrar.pid") != pid {
		t.Error("registrar was touched")
	}
	if mode, uid := h.mode(certs + "/registrar.key"); mode != 0o600 || uid != serviceUID {
		t.Errorf("carried key: %o of %d", mode, uid)
	}
}

// refusals bend the set of a host, or the host, each in one way.
func refusals() map[string]func(_ *host, items []Item) []Item {
	return map[string]func(_ *host, items []Item) []Item{
		"wrong key": func(_ *host, items []Item) []Item { items[0].Key = items[2].Key; return items },
		"server as client": func(_ *host, items []Item) []Item {
			items[3].Chain, items[3].Key = items[0].Chain, items[0].Key
			return items
		},
		"both usages": func(h *host, items []Item) []Item {
			return h.bent(items, testca.Want{Usages: append(testca.Server(), testca.Client()...)})
		},
		"no usage": func(h *host, items []Item) []Item { return h.bent(items, testca.Want{}) },
		"any usage": func(h *host, items []Item) []Item {
			return h.bent(items, testca.Want{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageAny}})
		},
		"expired": func(h *host, items []Item) []Item {
			return h.bent(items, testca.Want{Usages: testca.Server(), NotAfter: time.Now().Add(-time.Minute)})
		},
		"other root":        func(h *host, items []Item) []Item { items[0].CA = testca.New(h.t, "other").RootPEM; return items },
		"intermediate only": func(h *host, items []Item) []Item { items[0].CA = h.ca.IntermediatePEM; return items },
		"no CA":             func(_ *host, items []Item) []Item { items[0].CA = nil; return items },
		"key in the chain": func(_ *host, items []Item) []Item {
			items[0].Chain = append(items[0].Chain, items[0].Key...)
			return items
		},
		"two keys": func(_ *host, items []Item) []Item { items[0].Key = append(items[0].Key, items[0].Key...); return items },
		"chain too large": func(_ *host, items []Item) []Item {
			items[0].Chain = bytes.Repeat([]byte("x"), keypair.MaxFile+1)
			return items
		},
		"key without chain":  func(_ *host, items []Item) []Item { items[0].Chain = nil; return items },
		"path as name":       func(_ *host, items []Item) []Item { items[0].Name = "../verifier"; return items },
		"name of the bundle": func(_ *host, items []Item) []Item { items[0].Name = "ca"; return items },
		"name of the clients' bundle": func(_ *host, items []Item) []Item {
			items[0].Name = "clients-ca"
			return items
		},
		"profile twice":   func(h *host, items []Item) []Item { return append(items, h.item("second", keylime.Verifier)) },
		"unknown profile": func(_ *host, items []Item) []Item { items[0].Profile = "nginx"; return items },
		"client alone":    func(_ *host, items []Item) []Item { return items[1:] },
		"nothing new":     func(_ *host, items []Item) []Item { return carried(items, "") },
		"no user":         func(_ *host, items []Item) []Item { items[0].Service.User = "nobody-here"; return items },
		"no command":      func(_ *host, items []Item) []Item { items[0].Service.Start = nil; return items },
		"no main file": func(h *host, items []Item) []Item {
			h.must(os.Remove(h.path("etc/keylime/registrar.conf")))
			return items
		},
		"overridden": func(h *host, items []Item) []Item {
			h.write("etc/keylime/verifier.conf.d/99-site.conf", "[verifier]\nserver_cert = mine.crt\n", 0o440)
			return items
		},
		"overridden by a backup": func(h *host, items []Item) []Item {
			h.write("etc/keylime/tenant.conf.d/50-omen.conf.bak-20260210", "[tenant]\nClient_Key: x\n", 0o440)
			return items
		},
	}
}

func TestRefusedBeforeAnythingIsWritten(t *testing.T) {
	for name, bend := range refusals() {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			items := bend(h, h.all())
			before := h.snapshot("etc")
			err := h.renew(items...)
			if err == nil {
				t.Fatal("accepted")
			}
			t.Log(err)
			if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
				t.Errorf("/etc changed:\n%s", diff)
			}
			if left := h.snapshot("var/lib/omen-agent/keylime"); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
			if _, err := os.Stat(h.path("run")); err == nil {
				t.Error("something was started")
			}
		})
	}
}

// bent replaces the verifier's certificate by one of another shape.
func (h *host) bent(items []Item, want testca.Want) []Item {
	want.Name = "verifier.keylime.test"
	items[0].Chain, items[0].Key = h.ca.Issue(h.t, want)
	return items
}

func TestErrorsCarryARemedy(t *testing.T) {
	h := newHost(t)
	h.must(os.Remove(h.path("etc/keylime/registrar.conf")))
	err := h.renew(h.all()...)
	if !errors.Is(err, keylime.ErrNoMainFile) || !strings.Contains(remedy.Of(err), "keylime_upgrade_config") {
		t.Errorf("%v; hint: %s", err, remedy.Of(err))
	}
	items := newHost(t).all()
	items[0].Service.User = "nobody-here"
	err = newHost(t).renew(items...)
	if !errors.Is(err, ErrMissingUser) || !strings.Contains(remedy.Of(err), "useradd") {
		t.Errorf("%v; hint: %s", err, remedy.Of(err))
	}
}

func TestSecondAgent(t *testing.T) {
	h := newHost(t)
	first, err := h.installer.Install(t.Context(), h.all())
	h.must(err)
	second := &Installer{Root: h.root}
	if _, err := second.Install(t.Context(), h.all()); !errors.Is(err, ErrBusy) || remedy.Of(err) == "" {
		t.Errorf("got %v", err)
	}
	h.must(first.Close())
	h.must(h.renew(h.all()...))
}

func TestKeyDoesNotShow(t *testing.T) {
	item := newHost(t).item("tenant", keylime.Tenant)
	secret := strings.Split(string(item.Key), "\n")[1]
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "item", item, "key", item.Key)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "item", item, "key", item.Key)
	encoded, err := json.Marshal(item)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{logged.String(), string(encoded), item.Key.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%02X"} {
		texts = append(texts, fmt.Sprintf(verb, item.Key), fmt.Sprintf(verb, item))
	}
	for _, text := range texts {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) || strings.Contains(text, strings.Trim(fmt.Sprint([]byte(secret)), "[]")) {
			t.Errorf("the key shows in %.120q", text)
		}
	}
}

func TestLeftoversOfACrash(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	h.write("var/lib/omen-agent/keylime/gen-000007/verifier.key", "half", 0o600)
	h.must(os.Symlink("gen-000007", h.path("var/lib/omen-agent/keylime/current.new")))
	h.must(os.Symlink("/nowhere", h.path("etc/keylime/.certs.omen")))
	h.write("etc/keylime/.omen-dropin.new", "half", 0o600)
	h.must(h.renew(h.all()...))
	for _, gone := range []string{"var/lib/omen-agent/keylime/gen-000007", "var/lib/omen-agent/keylime/current.new", "etc/keylime/.certs.omen"} {
		if _, err := os.Lstat(h.path(gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 2 {
		t.Errorf("current: %+v, %v", got, err)
	}
}

func TestStateThatIsNotOurs(t *testing.T) {
	for name, bend := range map[string]func(h *host){
		"belongs to the service": func(h *host) { h.mkdir("var/lib/omen-agent"); h.chown("var/lib/omen-agent", serviceUID) },
		"link as state":          func(h *host) { h.mkdir("tmp"); h.must(os.Symlink("/tmp", h.path("var/lib/omen-agent"))) },
		"link as sets": func(h *host) {
			h.mkdir("tmp")
			h.mkdir("var/lib/omen-agent")
			h.must(os.Symlink("../../../tmp", h.path("var/lib/omen-agent/keylime")))
		},
		"current to elsewhere": func(h *host) {
			h.mkdir("var/lib/omen-agent/keylime")
			h.must(os.Symlink("../../../../etc", h.path("var/lib/omen-agent/keylime/current")))
		},
		"set is a link": func(h *host) {
			h.mkdir("var/lib/omen-agent/keylime")
			h.mkdir("tmp")
			h.must(os.Symlink("/tmp", h.path("var/lib/omen-agent/keylime/gen-000003")))
			h.must(os.Symlink("gen-000003", h.path("var/lib/omen-agent/keylime/current")))
		},
		"conf.d is a link": func(h *host) {
			h.mkdir("tmp")
			h.must(os.Symlink("../../tmp", h.path("etc/keylime/verifier.conf.d")))
		},
		"drop-in is a link": func(h *host) {
			h.write("tmp/victim", "[verifier]\n", 0o644)
			h.mkdir("etc/keylime/verifier.conf.d")
			h.must(os.Symlink("../../../tmp/victim", h.path("etc/keylime/verifier.conf.d/50-omen.conf")))
		},
		"certs is another's link": func(h *host) { h.must(os.Symlink("/etc/pki", h.path("etc/keylime/certs"))) },
		"certs is a file":         func(h *host) { h.write("etc/keylime/certs", "x", 0o644) },
		"lock is a link": func(h *host) {
			h.mkdir("var/lib/omen-agent")
			h.must(os.Symlink("/etc/passwd", h.path("var/lib/omen-agent/install.lock")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			bend(h)
			before := h.snapshot("etc")
			err := h.renew(h.all()...)
			if err == nil {
				t.Fatal("accepted")
			}
			t.Log(err)
			if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
				t.Errorf("/etc changed:\n%s", diff)
			}
			if _, err := os.Stat(h.path("tmp/gen-000001")); err == nil {
				t.Error("written through a link")
			}
		})
	}
}

func TestCancelledReloadIsRolledBack(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	before := h.installedSerial("verifier")
	h.mkdir("var/log")
	change, err := h.installer.Install(t.Context(), h.all())
	h.must(err)
	if err := change.Reload(cancelled()); err == nil {
		t.Fatal("reloaded without time")
	}
	h.must(change.RollBack(cancelled()))
	h.must(change.Close())
	if h.installedSerial("verifier") != before || h.servedSerial(keylime.Registrar) != h.installedSerial("registrar") {
		t.Error("not as before")
	}
}
