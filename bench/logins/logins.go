// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/bench/load"
)

// Options say how long to measure.
type Options struct {
	Plugins Plugins
	Parent  string // directory for the servers' data; "" is the system's for temporary files
	Rounds  int
	Slice   time.Duration
	// Report hears what was measured beside the figures: absolute rates.
	Report func(format string, args ...any)
}

// Many is the number of callers of the figures named c16.
const Many = 16

// Single measures on one node.
func Single(ctx context.Context, o Options) (figures map[string]float64, err error) {
	return measure(ctx, o, 1, "single", false)
}

// Raft3 measures on the leader of three nodes, against AppRole and cert auth too,
// and counts what renewals write.
func Raft3(ctx context.Context, o Options) (figures map[string]float64, err error) {
	return measure(ctx, o, 3, "raft3", true)
}

func measure(ctx context.Context, o Options, nodes int, where string, all bool) (figures map[string]float64, err error) {
	s, err := start(ctx, nodes, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	hosts, err := newFleet(Many)
	if err != nil {
		return nil, err
	}
	tpm, err := s.tpm(ctx, hosts)
	if err != nil {
		return nil, err
	}
	null, err := s.null(ctx, hosts)
	if err != nil {
		return nil, err
	}
	subjects := []load.Subject{tpm, null}
	figures = map[string]float64{}
	if err := o.compare(ctx, where, 1, subjects, figures); err != nil {
		return nil, err
	}
	if !all {
		return figures, o.compare(ctx, where, Many, subjects, figures)
	}
	if err := s.writes(ctx, tpm, o, figures); err != nil {
		return nil, err
	}
	others, err := s.builtin(ctx)
	if err != nil {
		return nil, err
	}
	return figures, o.compare(ctx, where, Many, append(subjects, others...), figures)
}

// builtin are OpenBao's own methods, with the tokens they give by default and
// with batch tokens.
func (s *server) builtin(ctx context.Context) (subjects []load.Subject, err error) {
	add := func(subject load.Subject, failed error) {
		subjects, err = append(subjects, subject), errors.Join(err, failed)
	}
	add(s.approle(ctx, "approle", "default", Many))
	add(s.approle(ctx, "approle_batch", "batch", Many))
	add(s.cert(ctx, "cert", "default", Many))
	add(s.cert(ctx, "cert_batch", "batch", Many))
	return subjects, err
}

// compare adds login_over_<subject>_<where>_c<callers> for each but the first.
func (o Options) compare(ctx context.Context, where string, callers int, subjects []load.Subject, figures map[string]float64) error {
	plan := load.Plan{Callers: callers, Rounds: o.Rounds, Slice: o.Slice}
	rates, err := plan.Compare(ctx, subjects)
	if err != nil {
		return fmt.Errorf("%s, %d callers: %w", where, callers, err)
	}
	ours := rates[subjects[0].Name]
	for _, s := range subjects {
		o.Report("%s c%d: %s %.0f logins/s", where, callers, s.Name, load.Median(rates[s.Name]))
		if s.Name != subjects[0].Name {
			figures[fmt.Sprintf("login_over_%s_%s_c%d", s.Name, where, callers)] = load.Ratio(ours, rates[s.Name])
		}
	}
	return nil
}
