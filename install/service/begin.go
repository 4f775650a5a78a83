// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/remedy"
)

// Since is when the oldest of the service's processes was started: a worker that
// outlived its parent has what the parent had read.
func (s *Process) Since(context.Context) (time.Time, error) {
	running, err := s.running()
	if err != nil {
		return time.Time{}, err
	}
	var first time.Time
	for _, p := range running {
		started, err := p.started()
		if err != nil {
			return time.Time{}, err
		}
		if first.IsZero() || started.Before(first) {
			first = started
		}
	}
	if first.IsZero() {
		return first, fmt.Errorf("%s: %w", s.marker, ErrNotRunning)
	}
	return first, nil
}

// Started is false: nobody else starts what has no unit.
func (s *Process) Started(context.Context, Moment) (bool, error) { return false, nil }

// started is when the process had begun, to a hundredth of a second and not before
// it did: by how long ago that was, since the time of the boot is known to the second
// only.
func (p process) started() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	ago := time.Duration(now.Nano()) - time.Duration(p.start+1)*(time.Second/ticksPerSecond)
	return time.Now().Add(-ago), nil
}

// Startable looks at the command as who will execute it, at its log, and at who is
// on its port. A sandbox it has none.
func (s *Process) Startable(context.Context, []string) error {
	if err := checkStart(s.spec.Start); err != nil {
		return fmt.Errorf("%w: %w", ErrCannotStart, err)
	}
	if err := checkExecutable("/", s.runAs, s.spec.Start[0]); err != nil {
		return remedy.Errorf("namei -l "+s.spec.Start[0]+" shows which folder or file is closed to that user", "%w: %w", ErrCannotStart, err)
	}
	if _, err := s.running(); err != nil {
		return fmt.Errorf("%w: %w", ErrCannotStart, err)
	}
	log, err := openLog(s.command().log)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCannotStart, err)
	}
	log.Close() // of a nil file it does nothing
	return nil
}
