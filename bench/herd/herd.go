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
	o.Report("herd: %d hosts enrolled by one import in %.1f s", o.Hosts, time.Since(began).Seconds())
	began = time.Now()
	if err := f.pin(ctx); err != nil {
		return nil, err
	}
	o.Report("herd: %d first logins, 32 at once, in %.0f s", o.Hosts, time.Since(began).Seconds())
	rounds := &rounds{}
	rounds.rss, err = peak(ctx, f.cluster, func() error { return rounds.play(ctx, f, o) })
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
		part, err := f.stampede(ctx, o.Part, o.Report)
		if err != nil {
			return err
		}
		whole, err := f.stampede(ctx, o.Hosts, o.Report)
		if err != nil {
			return err
		}
		r.add(part, whole)
	}
	return nil
}

// add keeps what one round gave.
func (r *rounds) add(part, whole *stampede) {
	r.seconds = append(r.seconds, whole.took.Seconds())
	r.p99 = append(r.p99, whole.percentile(99).Seconds())
	r.refused = append(r.refused, float64(whole.refused))
	r.growth = append(r.growth, whole.perHost()/part.perHost())
}

// stampede has the first of the fleet's hosts come back.
func (f *fleet) stampede(ctx context.Context, hosts int, report func(string, ...any)) (*stampede, error) {
	before, err := processorTime(f.cluster)
	if err != nil {
		return nil, err
	}
	s, failed := run(ctx, f.hosts[:hosts])
	after, err := processorTime(f.cluster)
	s.cpu = after - before
	report("%s", s)
	if failed != nil {
		err = errors.Join(fmt.Errorf("herd of %d: %w", hosts, failed), err)
	}
	return s, err
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
