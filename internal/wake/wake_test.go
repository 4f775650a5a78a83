// SPDX-License-Identifier: Apache-2.0

package wake

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUntilATime(t *testing.T) {
	for _, wait := range []time.Duration{-time.Hour, 0, 50 * time.Millisecond} {
		until := time.Now().Add(wait)
		set, err := Until(t.Context(), until)
		if now := time.Now(); set || err != nil || now.Round(0).Before(until.Round(0)) {
			t.Errorf("%s: at %v of %v, clock set: %v, %v", wait, now, until, set, err)
		}
	}
	if _, err := Until(t.Context(), time.Time{}); err != nil {
		t.Errorf("long ago: %v", err)
	}
}

func TestUntilTheEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, stop)
	if set, err := Until(ctx, time.Now().Add(time.Hour)); set || err != nil {
		t.Errorf("clock set: %v, %v", set, err)
	}
	if set, err := Until(ctx, time.Now().Add(time.Hour)); set || err != nil {
		t.Errorf("again: clock set: %v, %v", set, err)
	}
}

// The clock is set to what it shows: the kernel tells of that as of any other time.
func TestUntilTheClockIsSet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		for ctx.Err() == nil {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
			var now unix.Timespec
			if unix.ClockGettime(unix.CLOCK_REALTIME, &now) == nil {
				_ = unix.ClockSettime(unix.CLOCK_REALTIME, &now)
			}
		}
	}()
	set, err := Until(ctx, time.Now().Add(time.Hour))
	close(done)
	if !set || err != nil {
		t.Errorf("clock set: %v, %v, %v", set, err, ctx.Err())
	}
}

// What waits often leaves no timer open.
func TestNothingStaysOpen(t *testing.T) {
	count := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	before := count()
	for range 100 {
		if _, err := Until(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
