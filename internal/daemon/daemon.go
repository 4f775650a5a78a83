// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"funlab.casa/omen/internal/agent"
)

// Host does the job of one host; an [agent.Agent] does.
type Host interface {
	// Look looks after what is installed, and says what is and whether that needs a renewal.
	Look(ctx context.Context) (*agent.Found, error)
	// Status says what is installed.
	Status() (*agent.Status, error)
	// RenewDue renews what is due.
	RenewDue(ctx context.Context) (*agent.Outcome, error)
	// OnSwitch has ready called when new certificates are in place, and nothing has
	// restarted for them yet.
	OnSwitch(ready func())
}

// Clock tells the time and waits for one.
type Clock interface {
	Now() time.Time
	// Elapsed is a time that only goes on, and that nobody sets.
	Elapsed() time.Duration
	// Until waits until the clock shows t, or is set, or ctx ends.
	Until(ctx context.Context, t time.Time) error
}

// Supervisor is told where the daemon stands; systemd is one.
type Supervisor interface {
	Ready()             // what waits for us may start
	Status(line string) // for people
	Reloading()         // until Ready is called again
	Stopping()          // for good
	Alive()             // the loop goes round
}

// How long to wait.
const (
	atLeast   = time.Minute      // between the beginnings of two attempts
	lookAgain = 10 * time.Minute // at what is installed
)

// Daemon keeps the certificates of a host.
type Daemon struct {
	Load       func() (Host, error) // reads the configuration
	Hold       time.Duration        // how long services wait at boot for certificates that can serve
	Reload     <-chan os.Signal     // to read the configuration again
	Clock      Clock
	Supervisor Supervisor
	Log        *slog.Logger
	Hint       Hint
	Fatal      func() error // what only another process can mend, nil for nothing; may be nil

	host   Host
	boot   *boot
	pace   *pace
	renew  string        // why a renewal is due before its time, as the last look found
	by     time.Time     // when the server wants to see this host again at the latest
	opened time.Duration // when the next attempt may begin, in elapsed time
	told   string        // the line about what is waited for
}

// Run keeps the certificates until ctx ends, which is no error. A configuration that
// cannot be used at the start is one, and what is Fatal.
func (d *Daemon) Run(ctx context.Context) error {
	var err error
	if d.host, err = d.Load(); err != nil {
		return err
	}
	d.pace = newPace(renewalFailed, d.Hint)
	d.boot = newBoot(d.Supervisor, d.Log)
	d.host.OnSwitch(d.boot.certificatesInPlace)
	defer d.Supervisor.Stopping()
	defer d.boot.holdFor(ctx, d.Hold)()
	for ctx.Err() == nil {
		d.Supervisor.Alive()
		if d.Fatal != nil {
			if err := d.Fatal(); err != nil {
				return err
			}
		}
		next, soon := d.look(ctx)
		if d.Clock.Now().Before(next) {
			d.wait(ctx, next, soon)
			continue
		}
		d.attempt(ctx)
	}
	return nil
}

// look says when to renew, and whether to look again before long.
func (d *Daemon) look(ctx context.Context) (next time.Time, soon bool) {
	found, err := d.host.Look(ctx)
	if err != nil {
		// A renewal may mend it, or says what is wrong.
		d.pace.say(d.Log, "what is installed cannot be read", agent.EventFailed, err, atLeast)
		return d.Clock.Now().Add(d.opened - d.Clock.Elapsed()), true
	}
	if found.Renew != "" && found.Renew != d.renew {
		d.Log.Warn("renewing before it is due", "cause", found.Renew, "certificates", found.Certificates)
	}
	d.renew = found.Renew
	now := d.Clock.Now()
	next = d.due(found.Status, now)
	if found.Status.Usable(now) && next.After(now) {
		d.boot.ready("certificates are in place")
	}
	d.tell(found.Status, next, now)
	return next, found.Soon
}

// due is when the next attempt begins.
func (d *Daemon) due(status *agent.Status, now time.Time) time.Time {
	next := status.NextRenewal
	if !d.by.IsZero() && d.by.Before(next) {
		next = d.by
	}
	if d.renew != "" {
		next = now
	}
	if early := status.Early(now); !early.IsZero() {
		// By a clock that is wrong nothing else is due, or everything.
		next = earlier(early, now.Add(d.pace.clockGate(d.Clock.Elapsed())))
	} else {
		d.pace.gate = 0
	}
	return later(later(next, status.HeldUntil), now.Add(d.opened-d.Clock.Elapsed()))
}

// wait waits for the time, and meanwhile for what comes before it: somebody tells us to
// read the configuration, the clock is set, what is installed wants to be looked at.
func (d *Daemon) wait(ctx context.Context, next time.Time, soon bool) {
	debug.FreeOSMemory() // for minutes nothing will need what a look, or a renewal, did
	look := lookAgain
	if soon {
		look = atLeast
	}
	until := earlier(next, d.Clock.Now().Add(look))
	if _, told := await(ctx, d.Clock, d.Log, until, d.Reload); told {
		d.reload()
	}
}

// await waits until the clock shows a time, or ctx ends, or somebody says something, which
// it returns; not longer than until the next look in any case: a clock that is set back
// just before it is waited by makes no wait longer. Without a timer of the kernel it waits
// by one of the language.
func await[T any](ctx context.Context, clock Clock, log *slog.Logger, t time.Time, others <-chan T) (said T, told bool) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	most := time.AfterFunc(lookAgain, stop)
	defer most.Stop()
	done := make(chan error, 1)
	go func() { done <- clock.Until(waiting, t) }()
	var err error
	select {
	case err = <-done:
	case said = <-others:
		told = true
		stop()
		err = <-done
	}
	if err != nil {
		log.Error("no timer; looking again in a while", "error", err)
		pause(ctx, atLeast)
	}
	return said, told
}

func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// reload goes on with the configuration as it is now, or as it was where that cannot
// be used.
func (d *Daemon) reload() {
	d.Supervisor.Reloading()
	defer d.boot.again()
	host, err := d.Load()
	if err != nil {
		d.Log.Error("the configuration cannot be used; going on with the one before", d.pace.remedy(err)...)
		return
	}
	d.host, d.pace = host, newPace(renewalFailed, d.Hint)
	d.host.OnSwitch(d.boot.certificatesInPlace)
	d.opened = min(d.opened, d.Clock.Elapsed()+atLeast)
	d.Log.Info("configuration read")
}

// attempt renews once, and says when the next attempt may begin.
func (d *Daemon) attempt(ctx context.Context) {
	began := d.Clock.Elapsed()
	d.Supervisor.Status("renewing")
	outcome, err := d.host.RenewDue(ctx)
	if ctx.Err() != nil && err != nil {
		d.Log.Info("stopped in the middle of a renewal", "cause", err)
		return
	}
	if err == nil {
		d.by, d.opened = outcome.RenewBy, began+atLeast
		d.pace.succeeded()
		d.Log.Info("renewed", "host", outcome.Host, "generation", outcome.Generation, "restarted", outcome.Restarted, "event", agent.EventRenewed)
		d.boot.ready("certificates are renewed")
		return
	}
	status, unknown := d.host.Status()
	left := time.Duration(0)
	if unknown == nil {
		left = status.Left(d.Clock.Now())
	}
	d.opened = max(began+atLeast, d.Clock.Elapsed()+d.pace.failed(d.Log, err, left))
	if unknown == nil && status.Usable(d.Clock.Now()) {
		d.boot.ready("the certificates that are in place can serve")
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
