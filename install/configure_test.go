// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/test/testca"
)

// inMain puts the settings of every item into main files.
func inMain(items []Item) []Item {
	for at := range items {
		items[at].Mode = keylime.InMain
	}
	return items
}

// settings is what stands in /etc/keylime, the link left out.
func (h *host) settings() map[string]string {
	h.t.Helper()
	found := h.snapshot("etc/keylime")
	delete(found, h.path("etc/keylime/certs"))
	return found
}

// TestKeylimeEdited: Keylime's own services run on main files that we edited, and
// on drop-ins again, with nothing left of the one when the other begins.
func TestKeylimeEdited(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newKeylimeHost(t)
	defer h.tellLogs()
	before := h.settings()
	h.must(h.renew(inMain(h.keylimeItems())...))
	h.checkTenant()
	h.checkOptions()
	for name := range h.settings() {
		if strings.Contains(name, ".conf.d") {
			t.Errorf("%s beside an edited main file", name)
		}
	}
	h.must(h.renew(h.keylimeItems()...))
	h.checkOptions()
	now := h.settings()
	maps.DeleteFunc(now, func(name, _ string) bool {
		return strings.Contains(name, ".conf.d") || strings.HasSuffix(name, ".conf.omen")
	})
	if diff := cmp.Diff(before, now); diff != "" {
		t.Errorf("left of the edited files: %s", diff)
	}
}

// TestEditOnce: a renewal finds its settings in place.
func TestEditOnce(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(inMain(h.all())...))
	edited := h.settings()
	h.must(h.renew(inMain(h.all())...))
	if diff := cmp.Diff(edited, h.settings()); diff != "" {
		t.Errorf("the second renewal changed: %s", diff)
	}
}

// TestEditRollsBack: a set that cannot be used leaves no trace in the main files.
func TestEditRollsBack(t *testing.T) {
	h := newHost(t)
	before := h.settings()
	items := inMain(h.all())
	items[0].Service.Start = []string{h.program("keylime_verifier"), "-no-such-flag"}
	if err := h.renew(items...); err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(before, h.settings()); diff != "" {
		t.Error(diff)
	}
}

// TestTwoModesOfOneVerifier are refused before anything is written.
func TestTwoModesOfOneVerifier(t *testing.T) {
	h := newHost(t)
	before := h.settings()
	items := h.all()
	items[0].Mode = keylime.InMain
	if err := h.renew(items...); !errors.Is(err, keylime.ErrMixedModes) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, h.settings()); diff != "" {
		t.Error(diff)
	}
}

func (h *host) pushItem(root []byte) Item {
	h.t.Helper()
	return Item{
		Name: "push-agent", Profile: keylime.PushAgent, CA: root,
		Service: Service{
			Start:   []string{h.program("keylime_push_model_agent"), "-idle"},
			PIDFile: "/run/keylime_push_model_agent.pid", Log: "/var/log/keylime_push_model_agent.log",
		},
	}
}

// services renews and says what was restarted.
func (h *host) services(items ...Item) []string {
	h.t.Helper()
	h.mkdir("var/log")
	change, err := h.installer.Install(h.t.Context(), items)
	h.must(err)
	h.must(change.Reload(h.t.Context()))
	h.must(change.Probe(h.t.Context()))
	names := change.Services()
	h.must(change.Close())
	return names
}

// TestPushAgent gets one root and nothing else, and restarts when it is another.
func TestPushAgent(t *testing.T) {
	h := newHost(t)
	next := testca.New(t, "next")
	if got := h.services(h.pushItem(h.ca.RootPEM)); !cmp.Equal(got, []string{keylime.PushAgent}) {
		t.Errorf("restarted: %v", got)
	}
	if got := h.read(certs + "/root.crt"); got != string(h.ca.RootPEM) {
		t.Errorf("root.crt: %s", got)
	}
	for name := range h.snapshot(certs + "/") {
		if strings.HasSuffix(name, ".key") || strings.HasSuffix(name, "push-agent.crt") {
			t.Errorf("%s of a host without certificate", name)
		}
	}
	if mode, uid := h.mode("etc/keylime/agent.conf.d/50-omen.conf"); mode != 0o440 || uid != serviceUID {
		t.Errorf("drop-in: %o of %d", mode, uid)
	}
	if got := h.services(h.pushItem(append(h.ca.RootPEM, next.RootPEM...))); len(got) > 0 {
		t.Errorf("a second root that is not read restarted %v", got)
	}
	if got := h.services(h.pushItem(append(next.RootPEM, h.ca.RootPEM...))); !cmp.Equal(got, []string{keylime.PushAgent}) {
		t.Errorf("another first root restarted %v", got)
	}
	if got := h.read(certs + "/root.crt"); got != string(next.RootPEM) {
		t.Errorf("root.crt: %s", got)
	}
	for _, finding := range h.installer.Verify(t.Context(), []Item{h.pushItem(nil)}) {
		if finding.Err != nil {
			t.Errorf("%s: %v", finding.Check, finding.Err)
		}
	}
	h.must(os.Remove(h.path(certs + "/root.crt")))
	if findings := h.installer.Verify(t.Context(), []Item{h.pushItem(nil)}); len(findings) == 0 || findings[0].Err == nil {
		t.Errorf("without a root: %v", findings)
	}
}

func TestPushAgentIsNoAdministrator(t *testing.T) {
	h := newHost(t)
	chain, key := h.ca.Issue(t, testca.Want{Name: "push.test"})
	withPair := h.pushItem(h.ca.RootPEM)
	withPair.Chain, withPair.Key = chain, key
	for what, items := range map[string][]Item{
		"a tenant beside it":    {h.pushItem(h.ca.RootPEM), h.item("tenant", keylime.Tenant)},
		"a verifier's client":   {h.item("verifier", keylime.Verifier), h.item("verifier-client", keylime.VerifierClient), h.pushItem(h.ca.RootPEM)},
		"another agent":         {h.pushItem(h.ca.RootPEM), h.item("agent", keylime.Agent)},
		"a certificate":         {withPair},
		"an intermediate as CA": {h.pushItem(h.ca.Bundle())},
	} {
		if err := h.renew(items...); err == nil {
			t.Errorf("%s: installed", what)
		}
		if _, err := os.Stat(h.path("etc/keylime/certs")); err == nil {
			t.Errorf("%s: something is installed", what)
		}
	}
}
