// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// TestReconfigured: another configuration than the last renewal was made from is due, for
// the agent that has it; one that runs with the configuration of before takes nothing
// back that somebody renewed by hand.
func TestReconfigured(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	start := func(role string) *Agent {
		return &Agent{config: &config.Config{OpenBao: config.OpenBao{Role: role}}, state: state, log: slog.New(slog.DiscardHandler), now: time.Now}
	}
	if start("a").reconfigured() {
		t.Error("nothing was ever renewed, and that is another configuration")
	}
	running := start("a")
	if running.reconfigured() {
		t.Error("at its start")
	}
	running.apply()
	byHand := start("b")
	if !byHand.reconfigured() {
		t.Error("the configuration has changed, and nothing is due")
	}
	byHand.apply()
	if byHand.reconfigured() || running.reconfigured() {
		t.Error("renewed by hand, and something is due")
	}
	if start("b").reconfigured() || !start("a").reconfigured() {
		t.Error("read again, and something else is due")
	}
	if err := os.WriteFile(filepath.Join(state, appliedName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	lost := start("a")
	if lost.reconfigured() {
		t.Error("a record that is broken makes something due")
	}
	next := start("b")
	next.Succeed(lost)
	if !next.reconfigured() {
		t.Error("a change after a record was lost is not seen")
	}
}

// TestReconfiguredInPart: what some sets are of and others are not is nobody's: to go back
// is a change too.
func TestReconfiguredInPart(t *testing.T) {
	a, root := several(t)
	a.apply()
	place(t, filepath.Join(root, "etc/web/omen/readme"), "not PEM: nothing of ours, and nothing to take over")
	a.config.Certificates[2].DNS = []string{"new.test"}
	orders, err := a.orders(nil)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, orders)
	a.applied = nil // read again
	if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err == nil || !a.reconfigured() {
		t.Fatalf("%v", err)
	}
	if got := a.pending(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("to renew: %v", got)
	}
	a.needs = []need{{cause: causeConfiguration}, {causeTrust, "other"}}
	if got := a.pending(); !slices.Equal(got, []string{"web", "other"}) {
		t.Errorf("another set needs something meanwhile, to renew: %v", got)
	}
	a.config.Certificates[2].DNS, a.applied = nil, nil
	if !a.reconfigured() || a.pending() != nil {
		t.Errorf("gone back, to renew: %v", a.pending())
	}
}

// TestRootAloneIsRenewedAlone: a set in which nothing is issued has nothing issued for it.
func TestRootAloneIsRenewedAlone(t *testing.T) {
	a, _ := severalInstalled(t)
	a.config.Certificates[0] = config.Certificate{Name: "push-agent", Profile: "keylime-push-agent", Anchor: "/a"}
	a.apply()
	a.needs = []need{{causeTrust, "push-agent"}}
	only := a.pending()
	if orders, err := a.orders(only); !slices.Equal(only, []string{"push-agent"}) || len(orders) != 0 || err != nil {
		t.Errorf("to renew: %v, %v, %v", only, orders, err)
	}
}

// TestSetThatIsNotProvenIsRenewedToo: one that failed does not hide another that is in doubt.
func TestSetThatIsNotProvenIsRenewedToo(t *testing.T) {
	a, root := severalInstalled(t)
	a.failed, a.failedOf = []string{"web"}, a.fingerprint()
	if got := a.pending(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("to renew: %v", got)
	}
	place(t, filepath.Join(root, "var/lib/omen-agent/other/journal"), "{}")
	if got := a.pending(); got != nil {
		t.Errorf("other is not proven, to renew: %v", got)
	}
}

// TestCAsChangeTwice within the hour, and are installed twice; what was tried and is the
// same still is not.
func TestCAsChangeTwice(t *testing.T) {
	a, _ := several(t)
	change := []need{{causeTrust, "web"}, {causeSpoiled, "web"}}
	a.needs = slices.Clone(change)
	a.answer(a.sets()[1])
	if left := a.unanswered(slices.Clone(change)); len(left) != 0 {
		t.Errorf("at once: %v", left)
	}
	a.unanswered(nil) // all is well
	if left := a.unanswered(slices.Clone(change)); len(left) != 1 || left[0].cause != causeTrust {
		t.Errorf("changed again: %v", left)
	}
}

// TestSetThatIsGone: a link that leads nowhere is no set, and a renewal is due.
func TestSetThatIsGone(t *testing.T) {
	a, root := installed(t)
	sets := filepath.Join(root, "var/lib/omen-agent/keylime")
	current, err := os.Readlink(filepath.Join(sets, "current"))
	if err == nil {
		err = os.RemoveAll(filepath.Join(sets, current))
	}
	if err != nil {
		t.Fatal(err)
	}
	status, err := a.Status()
	if err != nil || !status.NextRenewal.IsZero() || status.Usable(time.Now()) {
		t.Errorf("%+v, %v", status, err)
	}
	if _, err := a.install.Current(); !errors.Is(err, install.ErrNotInstalled) {
		t.Error(err)
	}
}
