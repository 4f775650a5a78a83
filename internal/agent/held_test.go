// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// TestRefusedSetIsNotTriedInALoop: what was installed and not served is not
// installed again by the clock for a while, over restarts of the agent too, unless
// the configuration is another.
func TestRefusedSetIsNotTriedInALoop(t *testing.T) {
	now := time.Now()
	state := filepath.Join(t.TempDir(), "state")
	start := func(role string) *Agent {
		return &Agent{
			config:  &config.Config{OpenBao: config.OpenBao{Role: role}},
			install: &install.Installer{Root: t.TempDir()}, // nothing is installed there
			state:   state, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now },
		}
	}
	refused := &StepError{Step: StepProbe, Err: errors.New("another leaf is served"), RolledBack: true}
	noSpace := &StepError{Step: StepInstall, Err: errors.New("no space")}
	ended, stop := context.WithCancel(t.Context())
	stop()
	for _, row := range []struct {
		name string
		ctx  context.Context
		err  error
		held bool
	}{
		{"denied", t.Context(), &StepError{Step: StepLogin, Err: errors.New("denied")}, false},
		{"no space", t.Context(), noSpace, false},
		{"no space for one, another not served", t.Context(), joined([]error{noSpace, refused}), true},
		{"served again", t.Context(), nil, false},
		{"stopped in between", ended, refused, false},
		{"not served", t.Context(), refused, true},
		{"does not start", t.Context(), &StepError{Step: StepReload, Err: errors.New("exit status 1")}, true},
		{"denied after that", t.Context(), &StepError{Step: StepLogin, Err: errors.New("denied")}, true},
		{"served", t.Context(), nil, false},
	} {
		a := start("keylime")
		a.holdBack(row.ctx, row.err)
		want := time.Time{}
		if row.held {
			want = now.Add(heldAtMost)
		}
		if got := start("keylime").heldUntil(); !got.Equal(want) {
			t.Errorf("%s: held until %v, not %v", row.name, got, want)
		}
		if got := start("another").heldUntil(); !got.IsZero() {
			t.Errorf("%s: another configuration is held until %v", row.name, got)
		}
	}
	for name, text := range map[string]string{
		"no JSON": "{", "for ever": `{"configuration":"` + start("keylime").fingerprint() + `","until":"9999-01-01T00:00:00Z"}`, "nothing": "",
	} {
		if err := os.WriteFile(filepath.Join(state, heldName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := start("keylime").heldUntil(); !got.IsZero() {
			t.Errorf("%s: held until %v", name, got)
		}
	}
}

func TestLater(t *testing.T) {
	a := time.Now()
	b := a.Add(time.Second)
	if later(a, b) != b || later(b, a) != b || later(a, time.Time{}) != a {
		t.Error("not the later one")
	}
}
