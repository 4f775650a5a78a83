// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A Moment is a time since the boot (CLOCK_MONOTONIC), which no clock that is set
// changes: around a boot clocks are.
type Moment time.Duration

// Now is this moment.
func Now() Moment {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil { // it is always there
		return 0
	}
	return Moment(now.Nano())
}

// betweenLooks is how often a job of systemd is looked at.
const betweenLooks = 50 * time.Millisecond

// Started waits while systemd has a job for the unit, as it has at boot for what starts
// after us, and then looks when the main process was started.
func (u *Unit) Started(ctx context.Context, after Moment) (bool, error) {
	if err := u.awaitJob(ctx); err != nil {
		return false, err
	}
	property, err := u.bus.GetServicePropertyContext(ctx, u.name, "ExecMainStartTimestampMonotonic")
	if err != nil {
		return false, fmt.Errorf("unit %s: %w", u.name, err)
	}
	microseconds, _ := property.Value.Value().(uint64)
	started := Moment(time.Duration(microseconds) * time.Microsecond)
	if state, err := u.active(ctx); err != nil || !running(state) || started <= after {
		return false, err
	}
	u.first, u.wanted = true, true // whoever asked for that start wants it to run
	return true, nil
}

func (u *Unit) awaitJob(ctx context.Context) error {
	for {
		if busy, err := u.hasJob(ctx); err != nil || !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("unit %s: its start is not done: %w", u.name, ctx.Err())
		case <-time.After(betweenLooks):
		}
	}
}

// hasJob reports that systemd has something to do for the unit, or does it.
func (u *Unit) hasJob(ctx context.Context) (bool, error) {
	property, err := u.bus.GetUnitPropertyContext(ctx, u.name, "Job")
	if err != nil {
		return false, fmt.Errorf("unit %s: %w", u.name, err)
	}
	job, _ := property.Value.Value().([]any)
	return len(job) > 0 && job[0] != uint32(0), nil
}
