// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/bao"
)

// An Observer hears what becomes of renewals and how this host is. It is called
// by whoever renews and observes, one call at a time, and must not keep them waiting.
// What it hears holds no secret.
type Observer interface {
	Attempted(Attempt)
	Observed(State)
}

// Result is how an attempt ended.
type Result string

// The results.
const (
	RenewalSucceeded  Result = "success"
	RenewalFailed     Result = "failed"
	RenewalRefused    Result = "refused"     // by the server
	RenewalRolledBack Result = "rolled-back" // the set before serves again
)

// Results lists all of them.
func Results() []Result {
	return []Result{RenewalSucceeded, RenewalFailed, RenewalRefused, RenewalRolledBack}
}

// Attempt is one renewal that has ended.
type Attempt struct {
	Ended    time.Time
	Result   Result
	Step     Step        // at which it ended; "" before the first
	Rule     attest.Rule // of the auth method's refusal, whatever word the server used
	Spent    map[Step]time.Duration
	Commands map[string]int // to the TPM, by name
}

// State is how this host is.
type State struct {
	Time   time.Time
	Status *Status
	Served map[string]bool // by certificate: what was asked serves what is installed
	TPM    *host.Condition // nil: the TPM could not be asked
	Alarms []Alarm         // those of Status, and what only asking finds
}

// attempted tells of a renewal. One that was stopped from outside is none.
func (a *Agent) attempted(ctx context.Context, w *stopwatch, err error) {
	if a.Observer == nil || err != nil && ctx.Err() != nil {
		return
	}
	attempt := Attempt{Ended: a.now(), Result: result(err), Step: w.step, Spent: maps.Clone(w.spent), Commands: maps.Clone(w.commands)}
	var step *StepError
	if errors.As(err, &step) {
		attempt.Step = step.Step
	}
	var server *bao.Error
	if errors.As(err, &server) {
		attempt.Rule = server.Rule
	}
	a.Observer.Attempted(attempt)
}

func result(err error) Result {
	var step *StepError
	var server *bao.Error
	switch {
	case err == nil:
		return RenewalSucceeded
	case errors.As(err, &step) && step.RolledBack:
		return RenewalRolledBack
	case errors.As(err, &server) && (server.Kind == bao.KindRefused || server.Kind == bao.KindDenied || server.Kind == bao.KindRejected):
		return RenewalRefused
	}
	return RenewalFailed
}
