// SPDX-License-Identifier: Apache-2.0

package config

import "time"

// Boot says what a boot waits for.
type Boot struct {
	// Hold is for how long at most services wait for certificates that can serve.
	Hold *Duration `toml:"hold"`
}

// How long a boot is held.
const (
	defaultHold = 90 * time.Second
	mostHold    = 8 * time.Minute // TimeoutStartSec= of our unit is longer
)

func (b *Boot) fill() {
	if b.Hold == nil {
		b.Hold = &Duration{defaultHold}
	}
}

func (b *Boot) check() *fault {
	if b.Hold.Duration < 0 || b.Hold.Duration > mostHold {
		return wrong("boot", 0, "hold", `at most "8m"; "0s" holds nothing`, "hold = %q", b.Hold)
	}
	return nil
}
