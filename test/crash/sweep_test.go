// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// sweep does work for every case, on all processors, each with a root of its own.
// Errors that say the same are told once, with the first case.
func sweep[C any](t *testing.T, dir string, cases []C, work func(c C, root string) error) {
	t.Helper()
	errs := make([]error, len(cases))
	next := make(chan int)
	var group sync.WaitGroup
	for range runtime.NumCPU() {
		group.Go(func() {
			for at := range next {
				errs[at] = work(cases[at], hostAt(dir, at))
			}
		})
	}
	for at := range cases {
		next <- at
	}
	close(next)
	group.Wait()
	var kinds []string
	first, count := map[string]int{}, map[string]int{}
	for at, err := range errs {
		if err == nil {
			continue
		}
		text := strings.ReplaceAll(err.Error(), hostAt(dir, at), "")
		kind, _, _ := strings.Cut(text, saying)
		if count[kind]++; count[kind] == 1 {
			kinds, first[kind] = append(kinds, kind), at
		}
	}
	for _, kind := range kinds {
		t.Errorf("%v: %v (%d of %d cases)", cases[first[kind]], errs[first[kind]], count[kind], len(cases))
	}
}

// saying goes before the words of the program in an error.
const saying = "; it said: "

func hostAt(dir string, at int) string { return filepath.Join(dir, fmt.Sprintf("host-%d", at)) }

// every keeps each stride-th case, beginning with one that differs by offset, so
// that sweeps over the same calls look at different ones.
func every[C any](cases []C, stride, offset int) []C {
	var kept []C
	for at := offset % stride; at < len(cases); at += stride {
		kept = append(kept, cases[at])
	}
	return kept
}
