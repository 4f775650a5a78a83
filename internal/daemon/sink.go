// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

// Tokens gets tokens for other programs; an [agent.Agent] does.
type Tokens interface {
	// Sinks says which.
	Sinks() []config.Sink
	// Origin says where they come from: what is got from another place is another token.
	Origin() string
	// DropSinks removes those that were configured and are not any more.
	DropSinks()
	// FillSink gets one and writes it.
	FillSink(ctx context.Context, sink config.Sink) (*agent.Filled, error)
}

// When a token is replaced, as a share of its life. bao agent reads the file again when
// two thirds are over.
const (
	replaceFirst = 0.45
	replaceLast  = 0.55
	replaceBy    = 0.6 // at the latest, if all goes well
)

// Sinks keeps tokens for other programs fresh, beside the renewals of a [Daemon] and at
// their pace. What fails here is told, and stops no renewal.
type Sinks struct {
	clock Clock
	log   *slog.Logger
	hint  Hint
	next  chan Tokens // what Use was called with last
	host  Tokens
	kept  []*kept
}

// NewSinks makes one that keeps nothing yet.
func NewSinks(clock Clock, log *slog.Logger, hint Hint) *Sinks {
	return &Sinks{clock: clock, log: log, hint: hint, next: make(chan Tokens, 1)}
}

// Use has the sinks of a configuration kept from now on. It is called by one goroutine.
func (s *Sinks) Use(host Tokens) {
	select {
	case <-s.next:
	default:
	}
	s.next <- host
}

// kept is one sink, and when its token has to be replaced.
type kept struct {
	sink   config.Sink
	pace   *pace
	until  time.Time     // the end of the token that is there, by the clock
	due    time.Time     // by the clock
	soon   time.Duration // the same in elapsed time: the clock may be set back
	opened time.Duration // when the next attempt may begin, in elapsed time
}

// at is when the next attempt begins.
func (k *kept) at(clock Clock) time.Time {
	now, elapsed := clock.Now(), clock.Elapsed()
	due := earlier(k.due, now.Add(k.soon-elapsed))
	return later(due, now.Add(k.opened-elapsed))
}

// Run keeps the sinks until ctx ends.
func (s *Sinks) Run(ctx context.Context) {
	for ctx.Err() == nil {
		now := s.clock.Now()
		first, at := s.first(now)
		if first != nil && !at.After(now) {
			s.fill(ctx, first)
			continue
		}
		s.wait(ctx, at)
	}
}

// first is the sink that is due before the others; without one, when to look again.
func (s *Sinks) first(now time.Time) (first *kept, at time.Time) {
	at = now.Add(lookAgain)
	for _, k := range s.kept {
		if due := k.at(s.clock); first == nil || due.Before(at) {
			first, at = k, due
		}
	}
	return first, at
}

// wait waits for the time, or for another configuration.
func (s *Sinks) wait(ctx context.Context, at time.Time) {
	if host, told := await(ctx, s.clock, s.log, at, s.next); told {
		s.take(host)
	}
}

// take goes on with other sinks. What stays as it was keeps its time.
func (s *Sinks) take(host Tokens) {
	before := s.kept
	moved := s.host != nil && s.host.Origin() != host.Origin()
	host.DropSinks()
	s.host, s.kept = host, nil
	for _, sink := range host.Sinks() {
		k := &kept{sink: sink}
		for _, old := range before {
			if old.sink == sink && !moved {
				// What was refused may have been mended.
				k = old
				k.opened = min(k.opened, s.clock.Elapsed()+atLeast)
			} else if old.sink.File == sink.File {
				k.opened = min(old.opened, s.clock.Elapsed()+atLeast)
			}
		}
		k.pace = newPace(tokenNotKept, s.hint)
		s.kept = append(s.kept, k)
	}
}

// fill replaces one token, and says when that has to be done again.
func (s *Sinks) fill(ctx context.Context, k *kept) {
	began := s.clock.Elapsed()
	log := s.log.With("sink", k.sink.File, "role", k.sink.Role)
	filled, err := s.host.FillSink(ctx, k.sink)
	now := s.clock.Now().Round(0) // by the clock alone
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		k.opened = max(began+atLeast, s.clock.Elapsed()+k.pace.failed(log, err, k.until.Sub(now)))
		k.due, k.soon = time.Time{}, 0
		return
	}
	s.tell(log, k, filled)
	k.pace.succeeded()
	share := replaceFirst + (replaceLast-replaceFirst)*rand.Float64() //nolint:gosec // spreads logins, hides nothing
	gone := s.clock.Elapsed() - began
	life := time.Duration(float64(filled.TTL) * share)
	k.until, k.due, k.soon = now.Add(filled.TTL-gone), now.Add(life-gone), began+life
	k.opened = began + atLeast
}

// tell says once that a token is there, and that it is too short to be kept fresh.
func (s *Sinks) tell(log *slog.Logger, k *kept, filled *agent.Filled) {
	level := slog.LevelDebug
	if k.until.IsZero() || k.pace.said != "" {
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, "token written", "ttl", filled.TTL, "until", filled.Until)
	if k.until.IsZero() && time.Duration(float64(filled.TTL)*replaceBy) < atLeast {
		log.Warn("the token does not live long enough to be replaced in time", "ttl", filled.TTL,
			"remedy", "bao write auth/tpm/role/"+k.sink.Role+" token_ttl=15m")
	}
}
