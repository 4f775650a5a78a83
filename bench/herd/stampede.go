// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A stampede is what came of many hosts that began at the same moment.
type stampede struct {
	took    time.Duration   // until the last was in
	waited  []time.Duration // of each host until it was in, ascending
	refused int             // hosts whose first attempt failed
	reason  error           // of one of those
}

func (s *stampede) percentile(p int) time.Duration {
	return s.waited[min(len(s.waited)*p/100, len(s.waited)-1)]
}

// run cuts the power of the hosts and lets them begin together. One that does
// not get in tries again some seconds later, until ctx is over.
func run(ctx context.Context, hosts []*host) (*stampede, error) {
	for _, h := range hosts {
		h.powerCut()
	}
	var (
		s     = &stampede{waited: make([]time.Duration, len(hosts))}
		mutex sync.Mutex
		all   sync.WaitGroup
		start = make(chan struct{})
		began time.Time
	)
	for i, h := range hosts {
		all.Go(func() {
			<-start
			failed := h.untilIn(ctx)
			mutex.Lock()
			defer mutex.Unlock()
			s.waited[i] = time.Since(began)
			if failed != nil {
				s.refused, s.reason = s.refused+1, failed
			}
		})
	}
	began = time.Now()
	close(start)
	all.Wait()
	s.took = time.Since(began)
	slices.Sort(s.waited)
	return s, ctx.Err()
}

// untilIn attempts until the host is in, and returns why the first attempt
// failed.
func (h *host) untilIn(ctx context.Context) (first error) {
	for {
		err := h.logIn(ctx)
		if err == nil {
			return first
		}
		if first == nil {
			first = err
		}
		again := time.Duration((2 + 3*rand.Float64()) * float64(time.Second)) //nolint:gosec // spreads requests, hides nothing
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return first
		}
	}
}
