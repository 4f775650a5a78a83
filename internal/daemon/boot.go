// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// boot is the time in which services wait for us: they start once systemd is told that
// we are ready.
type boot struct {
	mutex      sync.Mutex
	supervisor Supervisor
	log        *slog.Logger
	over       bool
}

func newBoot(s Supervisor, log *slog.Logger) *boot { return &boot{supervisor: s, log: log} }

// ready lets the services start, for the first reason.
func (b *boot) ready(why string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.over {
		return
	}
	b.over = true
	b.log.Info("services may start", "cause", why)
	b.supervisor.Ready()
}

// certificatesInPlace is ready before the first restart: a restart of what waits for us
// would wait for us.
func (b *boot) certificatesInPlace() { b.ready("new certificates are in place") }

// again says that a reload is done. Who waits at boot goes on waiting.
func (b *boot) again() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.over {
		b.supervisor.Ready()
	}
}

// holdFor lets the services start after a while in any case. It returns how to stop that.
func (b *boot) holdFor(ctx context.Context, hold time.Duration) (stop func()) {
	if hold <= 0 {
		b.ready("nothing is held")
		return func() {}
	}
	held, cancel := context.WithTimeout(ctx, hold)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-held.Done()
		if ctx.Err() == nil && held.Err() == context.DeadlineExceeded {
			b.ready("they waited for certificates as long as is configured")
		}
	}()
	return func() { cancel(); <-done }
}
