// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBoot: when the services that wait for us may start, in seconds after the boot.
func TestBoot(t *testing.T) {
	for name, row := range map[string]struct {
		issued time.Duration // before now; 0: nothing is installed
		answer func(time.Time) error
		takes  time.Duration // an attempt
		hold   time.Duration
		want   time.Duration
	}{
		"valid and not due":                     {time.Hour, away, 0, time.Minute, 0},
		"due, OpenBao away":                     {17 * time.Hour, away, 20 * time.Second, time.Minute, 20 * time.Second},
		"due, renewed":                          {17 * time.Hour, nil, 5 * time.Second, time.Minute, 5 * time.Second},
		"due, OpenBao slow":                     {17 * time.Hour, away, 3 * time.Minute, time.Minute, time.Minute},
		"expired, OpenBao away":                 {25 * time.Hour, away, 20 * time.Second, time.Minute, time.Minute},
		"expired, renewed":                      {25 * time.Hour, nil, 5 * time.Second, time.Minute, 5 * time.Second},
		"nothing there, refused":                {0, denied, time.Second, 90 * time.Second, 90 * time.Second},
		"nothing there, nothing held":           {0, denied, time.Second, 0, 0},
		"nothing there, renewed at the 2nd try": {0, atTheSecond(), 0, 10 * time.Minute, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				begin := time.Now()
				if row.issued > 0 {
					m.issued = begin.Add(-row.issued)
				}
				m.answer = func(now time.Time) error {
					time.Sleep(row.takes)
					if row.answer == nil {
						return nil
					}
					return row.answer(now)
				}
				var ready time.Duration = -1
				m.run(Daemon{Hold: row.hold}, func() {
					for ready < 0 && time.Since(begin) < time.Hour {
						if m.words() == "ready" {
							ready = time.Since(begin)
						}
						after(time.Second)
					}
				})
				switch {
				case row.want >= 0 && ready != row.want:
					t.Errorf("ready after %s, not %s", ready, row.want)
				case row.want < 0 && (ready < time.Minute || ready > 4*time.Minute):
					t.Errorf("ready after %s", ready)
				}
			})
		})
	}
}

func atTheSecond() func(time.Time) error {
	number := 0
	return func(now time.Time) error {
		if number++; number == 1 {
			return away(now)
		}
		return nil
	}
}
