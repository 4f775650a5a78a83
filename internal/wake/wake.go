// SPDX-License-Identifier: Apache-2.0

package wake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Until waits until the wall clock shows t, or ctx ends, or the clock is set, of which
// set tells. A timer of the language stands still while the machine sleeps, and does not
// hear of a clock that is put right; the kernel's does (timerfd_create(2),
// TFD_TIMER_CANCEL_ON_SET).
func Until(ctx context.Context, t time.Time) (set bool, err error) {
	timer, err := arm(t)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = timer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = timer.Read(make([]byte, 8))
	closed := timer.Close()
	switch {
	case errors.Is(err, unix.ECANCELED):
		return true, closed
	case ctx.Err() != nil:
		return false, closed
	}
	return false, errors.Join(err, closed)
}

// arm gives a timer that can be read once it has run out.
func arm(t time.Time) (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "timer")
	at := unix.NsecToTimespec(max(t.UnixNano(), 1)) // zero would disarm it
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &unix.ItimerSpec{Value: at}, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set a timer: %w", err), timer.Close())
	}
	return timer, nil
}
