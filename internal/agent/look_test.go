// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
	if start("a").reconfigured() {
		t.Error("a record that is broken makes something due")
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
