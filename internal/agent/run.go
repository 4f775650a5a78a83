// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// How long to wait after an attempt that failed. There is never more than one
// attempt a minute, whatever the server answers.
const (
	afterFailure = 2 * time.Minute // the first wait; then longer, with jitter
	atLeast      = time.Minute
	atMost       = 30 * time.Minute
	afterRefusal = time.Hour // only an operator can change a final refusal
	lookAgain    = 10 * time.Minute
)

// Run renews all certificates whenever the first of them is due, until ctx ends,
// which is not an error.
func (a *Agent) Run(ctx context.Context) error {
	wait := &backoff.ExponentialBackOff{
		InitialInterval: afterFailure, MaxInterval: atMost, Multiplier: 2, RandomizationFactor: 0.5,
	}
	wait.Reset()
	for {
		status, err := a.Status()
		if err != nil {
			return err
		}
		if pause := status.NextRenewal.Sub(a.now()); pause > 0 {
			a.log.Info("nothing to renew yet", "next", pause.Round(time.Second))
		}
		if !a.await(ctx, status.NextRenewal) {
			return nil
		}
		if !sleep(ctx, a.attempt(ctx, wait)) {
			return nil
		}
	}
}

// attempt renews once and says how long to wait before the next attempt.
func (a *Agent) attempt(ctx context.Context, wait backoff.BackOff) time.Duration {
	outcome, err := a.Renew(ctx, nil)
	switch {
	case err == nil:
		a.log.Info("renewed", "host", outcome.Host, "generation", outcome.Generation, "restarted", outcome.Restarted)
		wait.Reset()
		return atLeast
	case ctx.Err() != nil:
		a.log.Info("stopped in the middle of a renewal", "cause", err)
		return 0
	case refused(err):
		a.log.Error("refused; an operator has to change something", "error", err, "next", afterRefusal)
		return afterRefusal
	default:
		pause := max(wait.NextBackOff(), atLeast)
		a.log.Error("renewal failed", "error", err, "next", pause)
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
