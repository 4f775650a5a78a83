// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/test/testca"
)

// comeBack does what omen-agent rollback does.
func (h *host) comeBack(items ...Item) error {
	h.t.Helper()
	ctx := h.t.Context()
	change, err := h.installer.Return(ctx, items)
	if err != nil {
		return err
	}
	defer func() { h.must(change.Close()) }()
	if err = change.Reload(ctx); err == nil {
		err = change.Probe(ctx)
	}
	if err != nil {
		if back := change.RollBack(ctx); back != nil {
			return joined{err, back}
		}
	}
	return err
}

// byHandServing is byHand as the stand-ins can use it.
func (h *host) byHandServing() {
	h.byHand()
	h.write("etc/keylime/certs/"+keylime.ClientsBundleFile, string(h.ca.Bundle()), 0o644)
	for _, name := range []string{"verifier", "registrar"} {
		h.chown("etc/keylime/certs/"+name+".key", serviceUID)
	}
}

func TestReturn(t *testing.T) {
	h := newHost(t)
	h.byHandServing()
	byHand := h.contents("etc/keylime/certs")
	h.must(h.renew(h.all()...))
	etc, before := h.snapshot("etc"), h.installedSerial("verifier")
	items := h.all()
	items[3].Name = "tenant2" // another drop-in
	h.must(h.renew(items...))
	if cmp.Diff(etc, h.snapshot("etc")) == "" {
		t.Fatal("the drop-ins are the same; the test shows less than it should")
	}

	h.must(h.comeBack(items...))
	if h.installedSerial("verifier") != before || h.servedSerial(keylime.Verifier) != before {
		t.Error("the set before is not back")
	}
	if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc is not what it was with it:\n%s", diff)
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 1 || got.Unproven {
		t.Errorf("current: %+v, %v", got, err)
	}

	h.must(h.comeBack(items...))
	if diff := cmp.Diff(byHand, h.contents("var/lib/omen-agent/keylime/gen-000000")); diff != "" {
		t.Errorf("what people had is not back:\n%s", diff)
	}
	if _, err := os.Stat(h.path("etc/keylime/verifier.conf.d")); err == nil {
		t.Error("a drop-in folder of ours is left")
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 0 || got.Unproven {
		t.Errorf("current: %+v, %v", got, err)
	}
	if err := h.comeBack(items...); !errors.Is(err, ErrNoReturn) {
		t.Errorf("before the first: %v", err)
	}
	h.must(h.renew(h.all()...))
	h.checkAdopted(byHand)
	if got, err := h.installer.Current(); err != nil || got.Generation != 1 {
		t.Errorf("current: %+v, %v", got, err)
	}
}

func TestReturnAfterAnInterruption(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	etc, proven := h.snapshot("etc"), h.installedSerial("registrar")
	items := h.all()
	items[0] = h.item("verifier2", keylime.Verifier)
	h.interrupt(items...)
	h.must(h.comeBack(h.all()...))
	if h.installedSerial("registrar") != proven || h.servedSerial(keylime.Registrar) != proven {
		t.Error("the proven set is not back")
	}
	if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	if _, err := os.Stat(h.path(journalPath)); err == nil {
		t.Error("the journal is still there")
	}
}

func TestNoReturn(t *testing.T) {
	gen := func(name string) string { return "var/lib/omen-agent/keylime/gen-000001/" + name }
	for name, row := range map[string]struct {
		bend func(h *host)
		want string
	}{
		"nothing before": {func(h *host) { h.must(os.RemoveAll(h.path(gen("")))) }, "no set before"},
		"expired": {func(h *host) {
			chain, key := h.ca.Issue(t, testca.Want{Name: "verifier.keylime.test", Usages: testca.Server(), NotAfter: time.Now().Add(-time.Minute)})
			h.rewrite(1, map[string]string{"verifier.crt": string(chain), "verifier.key": string(key)})
		}, "expired"},
		"another's key": {func(h *host) { h.rewrite(1, map[string]string{"verifier.key": h.read(gen("registrar.key"))}) }, "does not belong"},
		"another CA": {func(h *host) {
			chain, key := testca.New(t, "other").Issue(t, testca.Want{Name: "tenant.keylime.test", Usages: testca.Client()})
			h.rewrite(1, map[string]string{"tenant.crt": string(chain), "tenant.key": string(key)})
		}, "does not reach the root"},
		"changed":     {func(h *host) { h.write(gen("verifier.crt"), "x", 0o644) }, "verifier.crt: changed"},
		"no manifest": {func(h *host) { h.must(os.Remove(h.path(gen(generation.ManifestName)))) }, "missing"},
		"folder again": {func(h *host) {
			h.must(os.Remove(h.path("etc/keylime/certs")))
			h.byHand()
		}, "is a folder again"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(h.renew(h.all()...))
			h.must(h.renew(h.all()...))
			row.bend(h)
			etc, verifier := h.snapshot("etc"), h.servedSerial(keylime.Verifier)
			err := h.comeBack(h.all()...)
			if !errors.Is(err, ErrNoReturn) || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v", err)
			}
			t.Log(err)
			if got, err := h.installer.Current(); err != nil || got.Generation != 2 || got.Unproven {
				t.Errorf("current: %+v, %v", got, err)
			}
			if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" || h.servedSerial(keylime.Verifier) != verifier {
				t.Errorf("changed:\n%s", diff)
			}
		})
	}
}

// rewrite makes a generation anew with other contents, manifest and all.
func (h *host) rewrite(number int, contents map[string]string) {
	h.t.Helper()
	s, err := generation.Open(h.root, DefaultStateDir, KeylimeSet.Name)
	h.must(err)
	defer s.Close()
	files, err := s.Read(number)
	h.must(err)
	for at := range files {
		if text, other := contents[files[at].Name]; other {
			files[at].Content = []byte(text)
		}
	}
	h.must(s.Remove(number))
	h.must(s.Write(number, files))
}

func TestReturnThatIsNotServedIsTakenBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.must(h.renew(h.all()...))
	h.must(h.renew(h.all()...))
	etc, verifier := h.snapshot("etc"), h.installedSerial("verifier")
	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.comeBack(items...); !errors.Is(err, service.ErrNotRunning) {
		t.Fatalf("got %v", err)
	}
	if h.installedSerial("verifier") != verifier || h.servedSerial(keylime.Verifier) != verifier {
		t.Error("the set that was current is not back")
	}
	if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	if _, err := os.Stat(h.path("var/lib/omen-agent/keylime/gen-000001")); err != nil {
		t.Error("the set before is gone: ", err)
	}
	h.must(h.comeBack(h.all()...))
}
