// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

var oneSink = config.Sink{Role: "bao-agent", File: "/run/omen-agent/bao-agent.token"}

// purse is a host that gets tokens.
type purse struct {
	*machine
	sinks    []config.Sink
	origin   string
	dropped  int
	ttl      time.Duration
	takes    time.Duration // a login
	answer   func(now time.Time) error
	mutex    sync.Mutex
	attempts map[string][]time.Time // by file
	held     map[string]time.Time   // until when the token in a file is good, by time that went by
	gap      time.Duration          // for how long there was none after the first
}

func newPurse(t *testing.T, ttl time.Duration, sinks ...config.Sink) *purse {
	return &purse{machine: newMachine(t), sinks: sinks, ttl: ttl, attempts: map[string][]time.Time{}, held: map[string]time.Time{}}
}

func (p *purse) Sinks() []config.Sink { return p.sinks }

func (p *purse) Origin() string { return p.origin }

func (p *purse) DropSinks() { p.dropped++ }

func (p *purse) FillSink(_ context.Context, sink config.Sink) (*agent.Filled, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	began := time.Now()
	p.attempts[sink.File] = append(p.attempts[sink.File], began)
	time.Sleep(p.takes)
	if p.answer != nil {
		if err := p.answer(began); err != nil {
			return nil, err
		}
	}
	if until, had := p.held[sink.File]; had {
		p.gap = max(p.gap, time.Since(until))
	}
	p.held[sink.File] = began.Add(p.ttl)
	return &agent.Filled{Role: sink.Role, File: sink.File, TTL: p.ttl}, nil
}

// keep keeps the sinks while act happens, in time that takes none.
func (p *purse) keep(act func(s *Sinks)) (said string) {
	p.t.Helper()
	var log bytes.Buffer
	ctx, stop := context.WithCancel(p.t.Context())
	s := NewSinks(p, slog.New(slog.NewTextHandler(&log, nil)), hint)
	s.Use(p)
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	act(s)
	stop()
	<-ended
	return log.String()
}

// count is how often a file was to be written.
func (p *purse) count(sink config.Sink) int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return len(p.attempts[sink.File])
}

func (p *purse) apart(file string) (least, longest time.Duration) {
	m := machine{attempts: p.attempts[file]}
	return m.gaps()
}

// A token is always good for at least two fifths of its life, and is told once.
func TestSinkIsReplacedInTime(t *testing.T) {
	for _, ttl := range []time.Duration{2 * time.Minute, 5 * time.Minute, 15 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := newPurse(t, ttl, oneSink)
			p.takes = 3 * time.Second
			said := p.keep(func(*Sinks) { after(24 * time.Hour) })
			least, longest := p.apart(oneSink.File)
			if float64(longest) > 0.6*float64(ttl) || least < time.Minute || float64(least) < 0.45*float64(ttl) {
				t.Errorf("ttl %s: replaced after %s to %s", ttl, least, longest)
			}
			if told := strings.Count(said, "token written"); told != 1 || strings.Contains(said, "WARN") {
				t.Errorf("told %d times:\n%s", told, said)
			}
		})
	}
}

// A role whose tokens live shorter than that can be is told once, and asked no more
// often than once a minute.
func TestSinkWithAShortLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPurse(t, 30*time.Second, oneSink)
		said := p.keep(func(*Sinks) { after(time.Hour) })
		if least, _ := p.apart(oneSink.File); least < time.Minute {
			t.Errorf("asked again after %s", least)
		}
		if told := strings.Count(said, "token_ttl=15m"); told != 1 {
			t.Errorf("told %d times:\n%s", told, said)
		}
	})
}

// OpenBao away for an hour: asked now and then, told once, and noticed soon.
func TestSinkOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPurse(t, 15*time.Minute, oneSink)
		begin := time.Now()
		p.answer = func(now time.Time) error {
			if gone := now.Sub(begin); gone > time.Minute && gone < time.Hour {
				return away(now)
			}
			return nil
		}
		said := p.keep(func(*Sinks) { after(3 * time.Hour) })
		if least, longest := p.apart(oneSink.File); least < time.Minute || longest > 31*time.Minute {
			t.Errorf("asked after %s to %s", least, longest)
		}
		if p.gap > 80*time.Minute || p.gap < 40*time.Minute {
			t.Errorf("no good token for %s", p.gap)
		}
		if failed, written := strings.Count(said, "token is not replaced"), strings.Count(said, "token written"); failed != 1 || written != 2 {
			t.Errorf("told %d and %d times:\n%s", failed, written, said)
		}
	})
}

// A final no is asked for again each hour, and told once; another sink goes on.
func TestSinkRefused(t *testing.T) {
	other := config.Sink{Role: "backup", File: "/run/omen-agent/backup.token"}
	synctest.Test(t, func(t *testing.T) {
		p := newPurse(t, 15*time.Minute, oneSink, other)
		host := refuses{p, oneSink.File}
		said := p.keep(func(s *Sinks) { s.Use(host); after(10 * time.Hour) })
		if least, _ := p.apart(other.File); least > 9*time.Minute || len(p.attempts[other.File]) < 60 {
			t.Errorf("the other sink was written %d times, %s apart", len(p.attempts[other.File]), least)
		}
		if told := strings.Count(said, "refused; an operator"); told != 1 {
			t.Errorf("told %d times:\n%s", told, said)
		}
		if least, longest := p.apart("no " + oneSink.File); least != time.Hour || longest != time.Hour {
			t.Errorf("asked again after %s to %s", least, longest)
		}
	})
}

// refuses is a host one of whose roles is refused.
type refuses struct {
	*purse
	file string
}

func (r refuses) FillSink(ctx context.Context, sink config.Sink) (*agent.Filled, error) {
	if sink.File == r.file {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.attempts["no "+sink.File] = append(r.attempts["no "+sink.File], time.Now())
		return nil, denied(time.Now())
	}
	return r.purse.FillSink(ctx, sink)
}

// Another configuration begins what is new, ends what is gone, and does not begin again
// what stays.
func TestSinksOfAnotherConfiguration(t *testing.T) {
	gone, stays := oneSink, config.Sink{Role: "backup", File: "/run/omen-agent/backup.token"}
	added := config.Sink{Role: "scripts", File: "/run/omen-agent/scripts.token"}
	renamed := config.Sink{Role: "backup", File: stays.File, Owner: "backup"}
	synctest.Test(t, func(t *testing.T) {
		p := newPurse(t, 15*time.Minute, gone, stays)
		p.keep(func(s *Sinks) {
			after(30 * time.Second)
			next := newPurse(t, 15*time.Minute, stays, added)
			s.Use(next)
			after(time.Second)
			if next.count(stays) != 0 || next.count(added) != 1 {
				t.Errorf("%d and %d attempts", next.count(stays), next.count(added))
			}
			last := newPurse(t, 15*time.Minute, renamed)
			s.Use(last)
			after(time.Second)
			if last.count(renamed) != 0 {
				t.Error("the same file twice within a minute")
			}
			after(time.Minute)
			if last.count(renamed) != 1 || p.count(gone) != 1 || last.dropped != 1 {
				t.Errorf("%d and %d attempts, dropped %d times", last.count(renamed), p.count(gone), last.dropped)
			}
			corrected := newPurse(t, 15*time.Minute, config.Sink{Role: "another", File: stays.File})
			s.Use(refuses{newPurse(t, 0, stays), stays.File})
			after(2 * time.Minute)
			s.Use(corrected)
			after(time.Minute)
			if corrected.count(stays) != 1 {
				t.Error("what was refused and is corrected waits longer than a minute")
			}
			elsewhere := newPurse(t, 15*time.Minute, renamed)
			elsewhere.origin = "another OpenBao"
			s.Use(elsewhere)
			after(time.Minute)
			if elsewhere.count(renamed) != 1 {
				t.Error("a token of another OpenBao is kept")
			}
		})
	})
}

// A clock that is set back, or forward, leaves nobody without a token.
func TestSinkAndTheClock(t *testing.T) {
	for _, by := range []time.Duration{-365 * 24 * time.Hour, 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			p := newPurse(t, 15*time.Minute, oneSink)
			p.keep(func(*Sinks) {
				after(time.Minute)
				p.setClock(by)
				after(time.Second)
				if n := p.count(oneSink); by > 0 && n != 2 {
					t.Errorf("%d attempts after the machine slept for %s", n, by)
				}
				after(time.Hour)
			})
			if least, longest := p.apart(oneSink.File); longest > 9*time.Minute || least < time.Minute || p.gap > 0 {
				t.Errorf("clock set by %s: replaced after %s to %s, none for %s", by, least, longest, p.gap)
			}
		})
	}
}

// What is not configured is not kept.
func TestNoSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPurse(t, time.Minute)
		if said := p.keep(func(*Sinks) { after(24 * time.Hour) }); said != "" || len(p.attempts) > 0 {
			t.Error(fmt.Sprint(said, p.attempts))
		}
	})
}
