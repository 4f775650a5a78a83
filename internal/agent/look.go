// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"funlab.casa/omen/install"
)

// Need is what a look at the installed sets found.
type Need struct {
	Renew string // why a renewal is due before its time; "" for not
	Soon  bool   // somebody was in the way: look again before long
}

// Look looks after what is installed: it mends files, puts sealed keys back, and says
// whether the rest needs a renewal now. What makes one necessary again and again does
// so once an hour. Then it observes the host.
func (a *Agent) Look(ctx context.Context) Need {
	defer a.Observe(ctx)
	a.soon = false
	if a.spoiled(ctx) {
		return Need{Renew: "installed files are spoiled"}
	}
	if a.now().Sub(a.repaired) < betweenRepairs {
		return Need{Soon: a.soon}
	}
	why := ""
	switch {
	case a.reconfigured():
		why = "the configuration has changed"
	case a.otherTrust():
		why = "the CAs have changed"
	case a.strange:
		why = "something else is served than is installed"
	case a.behind(ctx):
		why = "services run with older certificates than are installed"
	default:
		return Need{Soon: a.soon}
	}
	a.repaired, a.failed = a.now(), nil
	return Need{Renew: why, Soon: a.soon}
}

// otherTrust reports that other CAs are configured than are installed.
func (a *Agent) otherTrust() bool {
	if err := a.readTrust(); err != nil {
		a.log.Warn("CAs are not compared", "error", err)
		return false
	}
	for _, s := range a.sets() {
		other, err := s.install.OtherTrust(a.emptyItems(s))
		if err != nil && !errors.Is(err, install.ErrNotInstalled) {
			a.log.Warn("CAs are not compared", "set", s.name, "error", err)
		}
		if other {
			return true
		}
	}
	return false
}

// appliedName is the file of the configuration that the last renewal was of.
const appliedName = "applied.json"

// applied is what a renewal of all certificates was made from.
type applied struct {
	Configuration string `json:"configuration"` // see Agent.fingerprint
}

// apply writes down that everything is as it is configured.
func (a *Agent) apply() {
	a.applied = &applied{a.fingerprint()}
	if err := a.keep(appliedName, a.applied); err != nil {
		a.log.Warn("what is configured is not written down", "error", err)
	}
}

// reconfigured reports that the last renewal was made from another configuration than
// this agent's. What is written down is read once: who renews by hand from another
// agent.toml meanwhile is not taken back. A record that is lost, or wrong, costs
// nothing, or one renewal.
func (a *Agent) reconfigured() bool {
	if a.applied == nil {
		a.applied = new(applied)
		if text, err := readSmall(filepath.Join(a.state, appliedName)); err != nil || json.Unmarshal(text, a.applied) != nil {
			a.applied.Configuration = a.fingerprint()
		}
	}
	return a.applied.Configuration != a.fingerprint()
}

// RenewDue is Renew of what is due: the certificates of sets that failed last, as long
// as no other is due, else all.
func (a *Agent) RenewDue(ctx context.Context) (*Outcome, error) {
	only := a.pending()
	if a.reconfigured() && a.failedOf != a.fingerprint() {
		only = nil // what failed did so under another configuration
	}
	outcome, err := a.Renew(ctx, only)
	if err == nil {
		a.apply()
	}
	return outcome, err
}

// Usable reports that services can start with what is installed: every certificate is
// there, valid now, and its key where it is read.
func (s *Status) Usable(now time.Time) bool {
	for _, c := range s.Certificates {
		if c.Serial == "" || c.Key.NotGiven || now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	return true
}

// FirstEnd is when the first of the installed certificates ends, zero where none is.
func (s *Status) FirstEnd() (first time.Time) {
	for _, c := range s.Certificates {
		if c.Serial != "" && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}

// Left is how long all installed certificates are still valid.
func (s *Status) Left(now time.Time) time.Duration { return max(s.FirstEnd().Sub(now), 0) }

// Early reports until when the clock shows a time at which an installed certificate was
// not made yet: it is this machine's clock that is wrong. Zero is not.
func (s *Status) Early(now time.Time) (until time.Time) {
	for _, c := range s.Certificates {
		if c.Serial != "" && now.Before(c.NotBefore) && c.NotBefore.After(until) {
			until = c.NotBefore
		}
	}
	return until
}

// OnSwitch has a function called whenever a set was switched to, before anything
// restarts for it.
func (a *Agent) OnSwitch(act func()) { a.switched = act }
