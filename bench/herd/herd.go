// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/bench/load"
)

// Options say how large a herd to make.
type Options struct {
	Plugin string // the tpm plugin's binary
	Parent string // directory for the servers' data; "" is the system's for temporary files
	Hosts  int
	Part   int // how many of them are a small herd
	Rounds int
	// Report hears what was measured beside the figures.
	Report func(format string, args ...any)
}

// Measure takes every figure of this package. The names say 10,000 and 1,000
// whatever the options do.
func Measure(ctx context.Context, o Options) (figures map[string]float64, err error) {
	f, err := newFleet(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	began := time.Now()
	if err := f.enrol(ctx); err != nil {
		return nil, err
	}
	o.Report("herd: %d hosts enrolled and pinned in %.0f s", o.Hosts, time.Since(began).Seconds())
	rounds := &rounds{}
	rounds.rss, err = peak(ctx, f.leader, func() error { return rounds.play(ctx, f, o) })
	return rounds.figures(), err
}

// rounds gathers what each round gave.
type rounds struct {
	seconds, p99, growth, refused []float64
	rss                           float64
}

// play has a small herd and the whole one come back in turn.
func (r *rounds) play(ctx context.Context, f *fleet, o Options) error {
	for range o.Rounds {
		part, err := run(ctx, f.hosts[:o.Part])
		if err != nil {
			return fmt.Errorf("herd of %d: %w", o.Part, err)
		}
		whole, err := run(ctx, f.hosts)
		if err != nil {
			return fmt.Errorf("herd of %d: %w", o.Hosts, err)
		}
		for _, s := range []*stampede{part, whole} {
			o.Report("%s", s)
		}
		r.seconds = append(r.seconds, whole.took.Seconds())
		r.p99 = append(r.p99, whole.percentile(99).Seconds())
		r.refused = append(r.refused, float64(whole.refused))
		r.growth = append(r.growth, whole.perHost()/part.perHost())
	}
	return nil
}

func (r *rounds) figures() map[string]float64 {
	if len(r.seconds) == 0 {
		return nil
	}
	return map[string]float64{
		"herd_10000_seconds":             load.Median(r.seconds),
		"herd_10000_p99_seconds":         load.Median(r.p99),
		"herd_10000_refused":             slices.Max(r.refused),
		"herd_cost_growth_1000_to_10000": load.Median(r.growth),
		"plugin_rss_mib":                 r.rss,
	}
}

func (s *stampede) perHost() float64 { return s.took.Seconds() / float64(len(s.waited)) }

// String is the stampede on one line.
func (s *stampede) String() string {
	text := fmt.Sprintf("herd of %d: all in after %.2f s, half after %.2f s, 99 of 100 after %.2f s, %d failed at first",
		len(s.waited), s.took.Seconds(), s.percentile(50).Seconds(), s.percentile(99).Seconds(), s.refused)
	if s.reason != nil {
		text += fmt.Sprintf(" (%v)", s.reason)
	}
	return text
}
