// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
)

// How long to wait after an attempt that failed. There is never more than one
// attempt a minute, whatever the server answers.
const (
	afterFailure = 2 * time.Minute // the first wait; then longer, with jitter
	atLeast      = time.Minute
	atMost       = 30 * time.Minute
	afterRefusal = time.Hour // only an operator can change a final refusal
	afterPending = 5 * time.Minute
	lookAgain    = 10 * time.Minute
)

// Run puts sealed keys where the services read them, then renews all certificates
// whenever the first of them is due, until ctx ends, which is not an error. Keys
// that do not come back, and services that run with older certificates than are
// installed, are a renewal that is due.
func (a *Agent) Run(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{
		InitialInterval: afterFailure, MaxInterval: atMost, Multiplier: 2, RandomizationFactor: 0.5,
	}
	wait.Reset()
	var by time.Time // when the server wants to see this host again, from the last success on
	if !a.unsealed(ctx) || a.behind(ctx) {
		by = a.now()
	}
	a.warnOfRivals(ctx)
	for {
		status, err := a.Status()
		if err != nil {
			return err
		}
		next := later(bounded(status.NextRenewal, by), a.heldUntil())
		if pause := next.Sub(a.now()); pause > 0 {
			a.log.Info("nothing to renew yet", "next", pause.Round(time.Second))
		}
		if !a.watch(ctx, next) {
			return nil
		}
		outcome, pause := a.attempt(ctx, wait)
		if outcome != nil {
			by = outcome.RenewBy
		}
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// unsealed reports that no sealed key of the current sets is lost. Where nothing is
// installed none is missing; where the TPM or the sets cannot be asked just now nothing
// is known, and it is tried again soon: a login would not help.
func (a *Agent) unsealed(ctx context.Context) bool {
	names, err := a.Unseal(ctx)
	if len(names) > 0 {
		a.log.Info("keys unsealed", "certificates", names)
	}
	a.soon = notYet(ctx, err)
	switch {
	case err == nil || errors.Is(err, install.ErrNotInstalled):
		return true
	case a.soon:
		a.log.Warn("keys do not come back yet", "error", err, "next", atLeast)
		return true
	}
	a.log.Warn("keys do not come back; a fresh login decides", "error", err)
	return false
}

// notYet reports that somebody is in the way of an unsealing, who will go away.
func notYet(ctx context.Context, err error) bool {
	for _, cause := range []error{host.ErrAbsent, host.ErrBusy, host.ErrDenied, host.ErrNoAnswer, host.ErrPCRMoved, install.ErrBusy} {
		if errors.Is(err, cause) {
			return ctx.Err() == nil
		}
	}
	return false
}

// renewBy is the server's hint as a time: not sooner than a minute, whatever it
// says. Zero is no hint.
func renewBy(now time.Time, after time.Duration) time.Time {
	if after == 0 {
		return time.Time{}
	}
	return now.Add(max(after, atLeast))
}

// bounded is when to renew: two thirds through a certificate's life, or earlier
// where the server says so.
func bounded(due, by time.Time) time.Time {
	if by.IsZero() {
		return due
	}
	return earlier(due, by)
}

// attempt renews once and says how long to wait before the next attempt. The
// outcome is nil where there is none.
func (a *Agent) attempt(ctx context.Context, wait backoff.BackOff) (*Outcome, time.Duration) {
	outcome, err := a.Renew(ctx, a.pending())
	if err != nil {
		return nil, a.afterFailure(ctx, err, wait)
	}
	a.log.Info("renewed", "host", outcome.Host, "generation", outcome.Generation, "restarted", outcome.Restarted)
	wait.Reset()
	return outcome, atLeast
}

func (a *Agent) afterFailure(ctx context.Context, err error, wait backoff.BackOff) time.Duration {
	switch {
	case ctx.Err() != nil:
		a.log.Info("stopped in the middle of a renewal", "cause", err)
		return 0
	case isRule(err, attest.RulePending):
		a.log.Warn("waiting for an operator's approval", "error", err, "next", afterPending)
		return afterPending
	case notServed(err):
		a.log.Error("the new set was not served; what is kept of it is in a folder refused-…, beside the generations",
			append([]any{"error", err, "next", a.heldUntil().Sub(a.now()).Round(time.Second)}, remedyOf(err)...)...)
		return atLeast // the hold makes it longer
	case refused(err):
		a.log.Error("refused; an operator has to change something", "error", err, "next", afterRefusal)
		return afterRefusal
	default:
		pause := max(wait.NextBackOff(), atLeast)
		a.log.Error("renewal failed", append([]any{"error", err, "next", pause}, remedyOf(err)...)...)
		return pause
	}
}

// await waits until a time by the clock, which a timer does not follow: it stands
// still while the machine sleeps. It reports whether it waited to the end.
func (a *Agent) await(ctx context.Context, until time.Time) bool {
	for left := until.Sub(a.now()); left > 0; left = until.Sub(a.now()) {
		if !sleep(ctx, min(left, lookAgain)) {
			return false
		}
	}
	return ctx.Err() == nil
}

// sleep waits and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err() == nil
}
