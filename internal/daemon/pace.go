// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
)

// How long to wait after an attempt that failed.
const (
	firstMost    = 2 * time.Minute  // the first wait is anything up to this; then twice as much
	most         = 30 * time.Minute // and never more
	afterRefusal = time.Hour        // only an operator can change a final refusal
	afterPending = 5 * time.Minute
	mostAsked    = time.Hour // of what a server asks for by Retry-After
)

// What fails, in words.
const (
	renewalFailed = "renewal failed"
	tokenNotKept  = "token is not replaced"
)

// pace is how long to wait between attempts that fail, and which of their errors were
// told.
type pace struct {
	wait *backoff.ExponentialBackOff
	hint Hint
	what string        // fails, in words
	said string        // the last error
	gate time.Duration // when an attempt is made although the clock is wrong, in elapsed time; 0: it is right
}

// newPace waits with full jitter: from nothing to twice the interval, so that hosts which
// failed together come back apart.
func newPace(what string, hint Hint) *pace {
	wait := &backoff.ExponentialBackOff{
		InitialInterval: firstMost / 2, MaxInterval: most / 2, Multiplier: 2, RandomizationFactor: 1,
	}
	wait.Reset()
	return &pace{wait: wait, what: what, hint: hint}
}

func (p *pace) succeeded() {
	p.wait.Reset()
	p.said, p.gate = "", 0
}

// failed tells an error, once as long as it stays the same, and says how long to wait.
// left is how long the certificates in use are still valid: what ends soon is not waited
// for until it has ended.
func (p *pace) failed(log *slog.Logger, err error, left time.Duration) time.Duration {
	var server *bao.Error
	pause, what, event := p.wait.NextBackOff(), p.what, agent.EventFailed
	switch {
	case errors.As(err, &server) && server.Kind == bao.KindRefused && server.Rule == attest.RulePending:
		pause, what, event = afterPending, "waiting for an operator's approval", agent.EventRefused
	case agent.NotServed(err):
		what, event = "the new set was not served; what is kept of it is in a folder refused-…, beside the generations", agent.EventNotServed
	case agent.Refused(err):
		pause, what, event = afterRefusal, "refused; an operator has to change something", agent.EventRefused
	case left > 0:
		pause = min(pause, left/4)
	}
	if server != nil {
		pause = max(pause, min(server.RetryAfter, mostAsked))
	}
	pause = max(pause, atLeast)
	p.say(log, what, event, err, pause)
	return pause
}

// say logs an error, as one where it is another than the last.
func (p *pace) say(log *slog.Logger, what string, event agent.Event, err error, next time.Duration) {
	level := slog.LevelError
	if err.Error() == p.said {
		level = slog.LevelDebug
	}
	p.said = err.Error()
	log.Log(context.Background(), level, what, append(p.remedy(err), "next", next.Round(time.Second), "event", event)...)
}

// Hint is the remedy of an error, "" for none.
type Hint func(error) string

// remedy is an error with its remedy, for a log.
func (p *pace) remedy(err error) []any {
	words := []any{"error", err}
	if hint := p.hint(err); hint != "" {
		words = append(words, "remedy", hint)
	}
	return words
}

// clockGate is for how long a clock that is known to be wrong is still waited for: what
// is issued meanwhile would be refused here. Then an attempt says so.
func (p *pace) clockGate(elapsed time.Duration) time.Duration {
	if p.gate == 0 {
		p.gate = elapsed + lookAgain
	}
	return p.gate - elapsed
}
