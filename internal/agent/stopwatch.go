// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// stopwatch adds up what each step of one renewal took, in time and in commands
// to the TPM.
type stopwatch struct {
	spent    map[Step]time.Duration
	commands map[string]int
	last     time.Time
}

func newStopwatch() *stopwatch {
	return &stopwatch{spent: map[Step]time.Duration{}, commands: map[string]int{}, last: time.Now()}
}

// lap gives the time since the lap before to step.
func (w *stopwatch) lap(step Step) {
	now := time.Now()
	w.spent[step] += now.Sub(w.last)
	w.last = now
}

// count hears of one TPM command.
func (w *stopwatch) count(command string) { w.commands[command]++ }
