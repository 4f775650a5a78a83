// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A stampede is what came of many hosts that began at the same moment.
type stampede struct {
	took    time.Duration   // until the last was in
	waited  []time.Duration // of each host until it was in, ascending
	refused int             // hosts that a refusal or an HTTP error was told, at the end of a call
	again   int             // hosts that were not in by their first conversation
	twice   int             // hosts that were not in by their first attempt
	reasons map[string]int  // why calls ended that brought nothing
	cpu     time.Duration   // of the servers and their plugins
}

func (s *stampede) percentile(p int) time.Duration {
	return s.waited[min(len(s.waited)*p/100, len(s.waited)-1)]
}

// limit is how long hosts may take to come in, by far.
func limit(hosts int) time.Duration {
	return 2*time.Minute + time.Duration(hosts)*30*time.Millisecond
}

// run cuts the power of the hosts and lets them begin together. It is an error
// when one is not in when time is up.
func run(ctx context.Context, hosts []*host) (*stampede, error) {
	ctx, cancel := context.WithTimeout(ctx, limit(len(hosts)))
	defer cancel()
	for _, h := range hosts {
		h.powerCut()
	}
	var (
		s     = &stampede{waited: make([]time.Duration, len(hosts)), reasons: map[string]int{}}
		out   []error
		mutex sync.Mutex
		all   sync.WaitGroup
		start = make(chan struct{})
		began time.Time
	)
	for i, h := range hosts {
		all.Go(func() {
			var c course
			<-start
			err := h.getIn(ctx, &c)
			mutex.Lock()
			defer mutex.Unlock()
			s.waited[i] = time.Since(began)
			s.add(&c)
			if err != nil {
				out = append(out, err)
			}
		})
	}
	began = time.Now()
	close(start)
	all.Wait()
	s.took = time.Since(began)
	slices.Sort(s.waited)
	if len(out) > 0 {
		return s, fmt.Errorf("%d are not in after %s, one of them because of: %w", len(out), s.took.Round(time.Second), out[0])
	}
	return s, nil
}

// add counts one host's way in.
func (s *stampede) add(c *course) {
	if len(c.answered) > 0 {
		s.refused++
	}
	if c.over > 0 || c.attempts > 1 {
		s.again++
	}
	if c.attempts > 1 {
		s.twice++
	}
	for _, reason := range slices.Concat(c.answered, c.silent) {
		s.reasons[reason]++
	}
}

func (s *stampede) perHost() float64 { return s.took.Seconds() / float64(len(s.waited)) }

// String is the stampede on one line.
func (s *stampede) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "herd of %d: all in after %.2f s, half after %.2f s, 99 of 100 after %.2f s; "+
		"%.2f ms of processor time a host in the servers and plugins; %d told an error, %d began a conversation again, %d came in by a later attempt",
		len(s.waited), s.took.Seconds(), s.percentile(50).Seconds(), s.percentile(99).Seconds(),
		s.cpu.Seconds()*1000/float64(len(s.waited)), s.refused, s.again, s.twice)
	for _, reason := range slices.Sorted(maps.Keys(s.reasons)) {
		fmt.Fprintf(&text, "; %d × %s", s.reasons[reason], reason)
	}
	return text.String()
}
