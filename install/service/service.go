// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

// Spec is what is known of a service before it is looked up.
type Spec struct {
	Root    string   // "/" or the root that paths and users are resolved in
	Unit    string   // the configured unit; "" looks through Units
	Units   []string // candidates
	Program string   // base name of the executable
	Start   []string // the command without systemd, Start[0] absolute
	User    string   // whom Start runs as; "" is who runs it now, else Default
	Default string   // "" is the caller
	Drops   bool     // started as User, it becomes somebody else: who runs it now is no guide
	Log     string   // where its output is appended; "" discards it
	PIDFile string   // "" for /run/omen-agent/<program>.pid
	Port    int      // TLS port, to find what was started by hand; 0 for none
	Reload  Reload   // for what has neither unit nor command: how it is told
}

// Controller is a service that was found. Restart, Reload, Restore and Stop are not
// safe for concurrent use.
type Controller interface {
	// Name is the unit or the command, for messages.
	Name() string
	// Account is the user the service runs as, or is started as.
	Account() account.Account
	// Environment lists what the service gets as environment ("NAME=value", or
	// "NAME=" where the value is not told), as far as it is configured or seen.
	Environment() []string
	// Executables lists paths of the program, best first.
	Executables() []string
	// Startable returns ErrCannotStart, or what stands in the way, when the service
	// would not come back if it were stopped now, as far as that shows from outside.
	// Of paths, absolute on the host, it says which the service would not see.
	Startable(ctx context.Context, paths []string) error
	// Since is when the running service was started; it has read its files after that.
	// One that does not run is an error.
	Since(ctx context.Context) (time.Time, error)
	// Started waits for the end of a start that somebody else has asked for, and
	// reports that the running service was started after the moment. False is no
	// start, or not known.
	Started(ctx context.Context, after Moment) (bool, error)
	// Reload has the service read its files again without an end to it, where it can;
	// where it cannot, or does not run, that is a Restart.
	Reload(ctx context.Context, how Reload) error
	// Restart stops the service whole and starts it; one that did not run is
	// started. It returns when the start is done, not when the service listens.
	Restart(ctx context.Context) error
	// Restore brings back what ran before the first Restart: the same program
	// again, or nothing.
	Restore(ctx context.Context) error
	// Stop stops the service and leaves it stopped.
	Stop(ctx context.Context) error
	// Alive returns an error when the service does not run.
	Alive(ctx context.Context) error
	// Close releases what the look-up opened; the service is not touched.
	Close()
}

// ErrNotFound means that there is neither a unit nor a command for a service.
var ErrNotFound = errors.New("no way to restart the service")

// ErrNotRunning means that a service has ended.
var ErrNotRunning = errors.New("service does not run")

// Find looks a service up: a loaded unit where systemd runs, else the command.
func Find(ctx context.Context, spec Spec) (Controller, error) {
	unit, err := findUnit(ctx, spec)
	if unit != nil || err != nil {
		return unit, err
	}
	if len(spec.Start) > 0 {
		return newProcess(spec)
	}
	if !spec.Reload.IsZero() {
		return newTold(spec)
	}
	return nil, remedy.Errorf("name the unit, or the command that starts it: [certificate.service] unit = … or start = [\"/full/path/"+spec.Program+"\"]",
		"%s: %w: %s", spec.Program, ErrNotFound, whatRuns(spec))
}

// whatRuns says what a person would look for first.
func whatRuns(spec Spec) string {
	if processes, err := listeners(spec.Port); err == nil && len(processes) > 0 {
		return fmt.Sprintf("process %d (%s) listens on port %d, but no unit of it is loaded and no command is configured",
			processes[0].pid, processes[0].command(), spec.Port)
	}
	return fmt.Sprintf("none of the units %v is loaded and no command is configured", spec.Units)
}
