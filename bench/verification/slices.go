// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// slice is the processor time that one measurement of one side takes: short,
// so that what else the machine does falls on both sides of a pair.
const slice = 40 * time.Millisecond

// processor is the processor time this process has used.
func processor() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// cost runs work for about a slice and returns the processor time of one run.
func cost(work func() error) (time.Duration, error) {
	runs := 0
	began := processor()
	for {
		if err := work(); err != nil {
			return 0, err
		}
		runs++
		if spent := processor() - began; spent >= slice {
			return spent / time.Duration(runs), nil
		}
	}
}

// ratio is the median over pairs of the cost of ours ÷ that of theirs.
func ratio(pairs int, ours, theirs func() error) (float64, error) {
	runtime.GC()
	ratios := make([]float64, pairs)
	for i := range ratios {
		first, second := ours, theirs
		if i%2 == 1 {
			first, second = theirs, ours
		}
		a, err := cost(first)
		if err != nil {
			return 0, err
		}
		b, err := cost(second)
		if err != nil {
			return 0, err
		}
		if i%2 == 1 {
			a, b = b, a
		}
		ratios[i] = a.Seconds() / b.Seconds()
	}
	slices.Sort(ratios)
	return ratios[pairs/2], nil
}

// allocated is how many bytes one run of work allocates.
func allocated(work func() error) (float64, error) {
	const runs = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if err := work(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / runs, nil
}
