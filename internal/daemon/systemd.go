// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"funlab.casa/omen/internal/wake"
)

// stuckAfter is for how long the loop may be in one place: a renewal of several services
// that go back takes some ten minutes.
const stuckAfter = 30 * time.Minute

// Systemd is the manager that started this process (sd_notify(3)). Without one nobody is
// told.
type Systemd struct {
	Log   *slog.Logger
	pulse atomic.Int64 // nanoseconds since the boot
}

// Ready implements Supervisor.
func (s *Systemd) Ready() { s.notify(sd.SdNotifyReady) }

// Stopping implements Supervisor.
func (s *Systemd) Stopping() { s.notify(sd.SdNotifyStopping) }

// Reloading implements Supervisor.
func (s *Systemd) Reloading() {
	s.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, sinceBoot().Microseconds()))
}

// Status implements Supervisor.
func (s *Systemd) Status(line string) { s.notify("STATUS=" + line) }

// Alive implements Supervisor.
func (s *Systemd) Alive() { s.pulse.Store(int64(sinceBoot())) }

func (s *Systemd) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		s.Log.Warn("systemd is not told", "state", state, "error", err)
	}
}

// Watch answers the watchdog of the unit, as long as the loop goes round, until ctx
// ends.
func (s *Systemd) Watch(ctx context.Context) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		if sinceBoot()-time.Duration(s.pulse.Load()) < stuckAfter {
			s.notify(sd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sinceBoot does not go on while the machine sleeps, as the watchdog does not.
func sinceBoot() time.Duration { return since(unix.CLOCK_MONOTONIC) }

func since(clock int32) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(clock, &now) != nil { // these are always there
		return 0
	}
	return time.Duration(now.Nano())
}

// WallClock is the clock of this machine.
type WallClock struct{}

// Now implements Clock.
func (WallClock) Now() time.Time { return time.Now() }

// Elapsed implements Clock.
func (WallClock) Elapsed() time.Duration { return since(unix.CLOCK_BOOTTIME) }

// Until implements Clock.
func (WallClock) Until(ctx context.Context, t time.Time) error {
	_, err := wake.Until(ctx, t)
	return err
}
