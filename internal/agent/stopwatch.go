// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// stopwatch adds up what each step of one renewal took.
type stopwatch struct {
	spent map[Step]time.Duration
	last  time.Time
}

func (a *Agent) stopwatch() *stopwatch {
	return &stopwatch{spent: map[Step]time.Duration{}, last: time.Now()}
}

// lap gives the time since the lap before to step.
func (w *stopwatch) lap(step Step) {
	now := time.Now()
	w.spent[step] += now.Sub(w.last)
	w.last = now
}
