// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"funlab.casa/omen/install/remedy"
)

// Unavailable is an error of Settings.SVID that says, in plain words for the process that
// asks, why there is none just now.
type Unavailable struct {
	Says string
	Err  error
}

// Error gives the cause, for the log.
func (u *Unavailable) Error() string { return u.Err.Error() }

// Unwrap gives the cause.
func (u *Unavailable) Unwrap() error { return u.Err }

// reason is what the process is told.
func reason(err error) string {
	var known *Unavailable
	if errors.As(err, &known) {
		return known.Says
	}
	return "there is no certificate to hand out just now"
}

// again is how long a socket that cannot be served is left alone.
const again = time.Minute

// Endpoint serves what it is told to, beside the work of an agent.
type Endpoint struct {
	log  *slog.Logger
	next chan *Settings
}

// NewEndpoint makes one that serves nothing yet.
func NewEndpoint(log *slog.Logger) *Endpoint {
	return &Endpoint{log: log, next: make(chan *Settings, 1)}
}

// Use has these settings served from now on, nil none. It is called by one goroutine.
func (e *Endpoint) Use(settings *Settings) {
	select {
	case <-e.next:
	default:
	}
	e.next <- settings
}

// Run serves until ctx ends.
func (e *Endpoint) Run(ctx context.Context) {
	var settings *Settings
	for ctx.Err() == nil {
		settings = e.during(ctx, settings)
	}
}

// during serves until there are other settings, which it returns.
func (e *Endpoint) during(ctx context.Context, settings *Settings) *Settings {
	serving, stop := context.WithCancel(ctx)
	var ended sync.WaitGroup
	if settings != nil {
		ended.Go(func() { e.keep(serving, *settings) })
	}
	defer ended.Wait()
	defer stop()
	select {
	case <-ctx.Done():
		return nil
	case next := <-e.next:
		return next
	}
}

// keep serves, and tries again where it cannot. The same trouble is told once.
func (e *Endpoint) keep(ctx context.Context, settings Settings) {
	said := ""
	for {
		err := serve(ctx, settings, e.log)
		if ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			words := []any{"socket", settings.Socket, "error", err}
			if hint := remedy.Of(err); hint != "" {
				words = append(words, "remedy", hint)
			}
			e.log.Error("workload API is not served", words...)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// teller tells in the log what changes, and not each time.
type teller struct {
	mutex sync.Mutex
	last  string    // trouble with what is handed out
	at    time.Time // when somebody who was refused was told last
}

// state tells that nothing can be handed out, and that it can again.
func (t *teller) state(log *slog.Logger, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if now == t.last {
		return
	}
	t.last = now
	if err != nil {
		log.Warn("no certificate can be handed out", "cause", err)
		return
	}
	log.Info("the certificate is handed out again")
}

// refused tells of a user who asks and is not listed, once a minute at most.
func (t *teller) refused(log *slog.Logger, uid uint32) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if time.Since(t.at) < time.Minute {
		return
	}
	t.at = time.Now()
	log.Warn("a process of a user who is not listed asks for the certificate", "uid", uid)
}
