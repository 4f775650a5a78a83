// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"funlab.casa/omen/bench/load"
	"funlab.casa/omen/test/world"
)

// servicesPart is the argument with which this program measures restarts, in a world
// of its own.
const servicesPart = "services"

// restartPairs is how often a renewal and a bare restart are timed in turn, for each
// service.
const restartPairs = 5

// limitOfOutage is more than any restart takes that is worth measuring.
const limitOfOutage = time.Minute

// keylimeService is one whose interruption is measured.
type keylimeService struct{ certificate, program, port, pidFile, log string }

var keylimeServices = []keylimeService{
	{"verifier", "/usr/bin/keylime_verifier", "8881", "/run/omen-agent/verifier.pid", "/var/log/keylime/verifier.log"},
	{"registrar", "/usr/bin/keylime_registrar", "8891", "/run/omen-agent/registrar.pid", "/var/log/keylime/registrar.log"},
}

// restarts times, for each service, how long nobody gets through a handshake while
// its certificate is renewed, and while it is only restarted.
func restarts(ctx context.Context, h *world.Host) (map[string]float64, error) {
	f := map[string]float64{}
	for _, s := range keylimeServices {
		var ratios, seconds []float64
		for range restartPairs {
			renewal, err := s.interruption(ctx, h, s.renew)
			if err != nil {
				return nil, fmt.Errorf("renew %s: %w", s.certificate, err)
			}
			bare, err := s.interruption(ctx, h, s.restart)
			if err != nil {
				return nil, fmt.Errorf("restart %s: %w", s.certificate, err)
			}
			ratios = append(ratios, renewal.Seconds()/bare.Seconds())
			seconds = append(seconds, renewal.Seconds())
		}
		f["restart_over_bare_"+s.certificate] = load.Median(ratios)
		f["restart_seconds_"+s.certificate] = load.Median(seconds)
	}
	return f, nil
}

func (s keylimeService) renew(ctx context.Context, h *world.Host) error {
	_, err := h.Must(ctx, "/usr/bin/omen-agent", "--config", world.AgentConfig, "renew", "--certificate", s.certificate)
	return err
}

// restart has this program do it on the host.
func (s keylimeService) restart(ctx context.Context, h *world.Host) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = h.Must(ctx, self, "restart", s.pidFile, s.log, s.program)
	return err
}

// interruption is the longest time between two handshakes that were completed, from
// before act to after it.
func (s keylimeService) interruption(ctx context.Context, h *world.Host, act func(context.Context, *world.Host) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*limitOfOutage)
	defer cancel()
	w := &watch{address: h.IP + ":" + s.port}
	if err := w.until(ctx, time.Now()); err != nil { // it serves
		return 0, err
	}
	done := make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() { done <- w.keep(watching) }()
	err := act(ctx, h)
	back := time.Now()
	stop()
	if err = errors.Join(err, <-done); err != nil {
		return 0, err
	}
	return w.longest, w.until(ctx, back)
}

// watch completes one handshake after the other.
type watch struct {
	address string
	last    time.Time
	longest time.Duration
}

// keep goes on until ctx ends.
func (w *watch) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.once(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// until goes on until a handshake was completed after a time.
func (w *watch) until(ctx context.Context, after time.Time) error {
	for !w.last.After(after) {
		if err := errors.Join(ctx.Err(), w.once(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// poll is how often is tried: a hundredth of the shortest interruption.
const poll = 10 * time.Millisecond

// once tries one handshake.
func (w *watch) once(ctx context.Context) error {
	connection, err := dial(ctx, w.address, time.Second)
	now := time.Now()
	if err == nil {
		if !w.last.IsZero() {
			w.longest = max(w.longest, now.Sub(w.last))
		}
		w.last = now
		connection.Close() // it may be cut off already: the service stops
		return nil
	}
	if !w.last.IsZero() && now.Sub(w.last) > limitOfOutage {
		return fmt.Errorf("%s does not come back: %w", w.address, err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(poll):
	}
	return nil
}
