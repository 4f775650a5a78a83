// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// stopwatch adds up what each step of one renewal took, in time and in commands
// to the TPM. The time from the beginning of a step to that of the next is its.
type stopwatch struct {
	spent    map[Step]time.Duration
	commands map[string]int
	step     Step // that is going on; "" before the first
	since    time.Time
	tell     func(Step) // hears of a step as it begins; nil: nobody does
}

func newStopwatch() *stopwatch {
	return &stopwatch{spent: map[Step]time.Duration{}, commands: map[string]int{}, since: time.Now()}
}

// stopwatch is one that tells Progress.
func (a *Agent) stopwatch() *stopwatch {
	w := newStopwatch()
	w.tell = a.Progress
	return w
}

// begin ends the step that is going on and begins this one.
func (w *stopwatch) begin(step Step) {
	w.stop()
	if w.step != step && w.tell != nil {
		w.tell(step)
	}
	w.step = step
}

// stop gives the time since the last beginning to its step.
func (w *stopwatch) stop() {
	now := time.Now()
	if w.step != "" {
		w.spent[w.step] += now.Sub(w.since)
	}
	w.since = now
}

// count hears of one TPM command.
func (w *stopwatch) count(command string) { w.commands[command]++ }
