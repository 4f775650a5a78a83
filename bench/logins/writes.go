// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/bench/load"
)

// renewals is how many logins are counted for raft_writes_per_login.
const renewals = 1000

// tally is what a leader has written: all of it, and what of it was the bulk of
// last-seen times, which the plugin counts itself.
type tally struct{ applied, lastSeen float64 }

func (s *server) tally(ctx context.Context) (t tally, err error) {
	applied, err := s.leader.RaftApplies(ctx)
	if err != nil {
		return t, err
	}
	admin, err := s.leader.Admin()
	if err != nil {
		return t, err
	}
	statistics, err := admin.Logical().ReadWithContext(ctx, "auth/tpm/statistics")
	if err != nil {
		return t, err
	}
	number, ok := statistics.Data["last_seen_writes"].(json.Number)
	if !ok {
		return t, fmt.Errorf("auth/tpm/statistics has no last_seen_writes: %v", statistics.Data)
	}
	if applied == 0 { // enrolment wrote
		return t, errors.New("the leader counts no raft writes")
	}
	t.applied = float64(applied)
	t.lastSeen, err = number.Float64()
	return t, err
}

// during is what was written while do ran.
func (s *server) during(ctx context.Context, do func() error) (t tally, took time.Duration, err error) {
	before, err := s.tally(ctx)
	if err != nil {
		return t, 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return t, 0, err
	}
	took = time.Since(began)
	after, err := s.tally(ctx)
	return tally{after.applied - before.applied, after.lastSeen - before.lastSeen}, took, err
}

// writes counts the raft writes of renewals, less those of an idle span of the
// same length and the bulk writes of last-seen times.
func (s *server) writes(ctx context.Context, tpm load.Subject, o Options, figures map[string]float64) error {
	busy, took, err := s.during(ctx, func() error { return renew(ctx, tpm) })
	if err != nil {
		return err
	}
	idle, _, err := s.during(ctx, func() error { return pause(ctx, took) })
	if err != nil {
		return err
	}
	o.Report("%d renewals in %.1f s: %.0f raft writes, of them %.0f of last-seen times in bulk; idle for as long: %.0f and %.0f",
		renewals, took.Seconds(), busy.applied, busy.lastSeen, idle.applied, idle.lastSeen)
	figures["raft_writes_per_login"] = (busy.applied - busy.lastSeen - (idle.applied - idle.lastSeen)) / renewals
	figures["raft_last_seen_writes"] = busy.lastSeen
	return nil
}

func renew(ctx context.Context, tpm load.Subject) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range Many {
		group.Go(func() error {
			for n := i; n < renewals; n += Many {
				if err := tpm.Login(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
