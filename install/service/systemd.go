// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

const (
	// jobTimeout bounds one job of systemd: stopping may take its 10 s drain, and
	// a unit of Type=notify its start.
	jobTimeout = 50 * time.Second
	// stopTimeout is when a stop has hung: longer than the drain, and well below
	// TimeoutStopSec, which is 60 s in Keylime's units. Its verifier and registrar
	// ignore a TERM that comes within moments of their start.
	stopTimeout = 15 * time.Second
)

// Unit is a service of systemd. It implements Controller.
type Unit struct {
	name     string
	bus      *dbus.Conn
	account  account.Account
	env      []string
	programs []string
	first    bool
	wanted   bool // it ran, or systemd was about to start it
}

// findUnit returns the first loaded unit, or nil where systemd does not run or
// knows none of them. A unit that is configured by name must be loaded.
func findUnit(ctx context.Context, spec Spec) (Controller, error) {
	if spec.Root != "/" || !booted() {
		return nil, needsSystemd(spec)
	}
	bus, err := connect(ctx)
	if err != nil && spec.Unit == "" && len(spec.Start) > 0 {
		return nil, nil // seen, but not ours to speak to (a container): the command is configured
	}
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	unit, err := firstLoaded(ctx, bus, spec)
	if unit == nil {
		bus.Close()
		return nil, err
	}
	return unit, nil
}

// connect opens a connection that outlives ctx: what a restart has begun must be
// taken back also when ctx has ended.
func connect(ctx context.Context) (*dbus.Conn, error) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, cancel)
	bus, err := dbus.NewWithContext(lasting)
	if release() {
		return bus, err
	}
	if err == nil {
		bus.Close()
	}
	return nil, ctx.Err()
}

// firstLoaded returns the first unit that is loaded. One that is there and
// cannot be used (masked, or with an error in it) is named in an error, unless
// there is another way.
func firstLoaded(ctx context.Context, bus *dbus.Conn, spec Spec) (*Unit, error) {
	candidates := spec.Units
	if spec.Unit != "" {
		candidates = []string{spec.Unit}
	}
	var useless error
	for _, name := range candidates {
		state, err := loadState(ctx, bus, name)
		switch {
		case err != nil:
			return nil, err
		case state == "loaded":
			return load(ctx, bus, name, account.Of(spec.Root))
		case spec.Unit != "" || state != "not-found" && len(spec.Start) == 0:
			useless = errors.Join(useless, cannotUse(name, state))
		}
	}
	return nil, useless
}

func loadState(ctx context.Context, bus *dbus.Conn, name string) (string, error) {
	property, err := bus.GetUnitPropertyContext(ctx, name, "LoadState")
	if err != nil {
		return "", fmt.Errorf("unit %s: %w", name, err)
	}
	state, _ := property.Value.Value().(string)
	return state, nil
}

func cannotUse(name, state string) error {
	if state == "masked" {
		return remedy.Errorf("systemctl unmask "+name, "unit %s is masked: %w", name, ErrNotFound)
	}
	return remedy.Errorf("systemctl status "+name, "unit %s is not loaded, but %s: %w", name, state, ErrNotFound)
}

// booted reports whether systemd is this system's manager (sd_booted(3)).
func booted() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

func needsSystemd(spec Spec) error {
	if spec.Unit == "" || len(spec.Start) > 0 {
		return nil
	}
	return remedy.Errorf("configure start instead of unit", "unit %s: systemd does not run here", spec.Unit)
}

// load reads a loaded unit.
func load(ctx context.Context, bus *dbus.Conn, name string, book account.Book) (*Unit, error) {
	properties, err := bus.GetUnitTypePropertiesContext(ctx, name, "Service")
	if err != nil {
		return nil, fmt.Errorf("unit %s: %w", name, err)
	}
	unit := &Unit{name: name, bus: bus, programs: programs(properties["ExecStart"])}
	unit.env, _ = properties["Environment"].([]string)
	unit.env = append(unit.env, fromFiles(properties["EnvironmentFiles"])...)
	user, _ := properties["User"].(string)
	group, _ := properties["Group"].(string)
	if err := unit.findAccount(book, user, group); err != nil {
		return nil, fmt.Errorf("unit %s: %w", name, err)
	}
	return unit, nil
}

// programs reads the paths out of ExecStart, an array of structures that begin
// with the path.
func programs(property any) []string {
	commands, _ := property.([][]any)
	var paths []string
	for _, command := range commands {
		if path, isText := command[0].(string); isText && strings.HasPrefix(path, "/") {
			paths = append(paths, path)
		}
	}
	return paths
}

// Name is the unit's name.
func (u *Unit) Name() string { return u.name }

// Account is User= and Group=; a unit without them runs as root.
func (u *Unit) Account() account.Account { return u.account }

func (u *Unit) findAccount(book account.Book, user, group string) (err error) {
	if user == "" {
		user = "0"
	}
	if group != "" {
		user += ":" + group
	}
	u.account, err = book.Find(user)
	return err
}

// Environment is the unit's Environment=, and the names in its EnvironmentFile=.
func (u *Unit) Environment() []string { return u.env }

// Executables are the programs of ExecStart=.
func (u *Unit) Executables() []string { return u.programs }

// Restart runs a restart job and waits for its end.
func (u *Unit) Restart(ctx context.Context) error {
	state, err := u.active(ctx)
	if err != nil {
		return err
	}
	if !u.first {
		// "activating" is most of all a unit that waits for its RestartSec.
		u.wanted, u.first = running(state) || state == "activating", true
	}
	return u.job(ctx, "restart", u.bus.RestartUnitContext)
}

// Restore restarts a unit that ran, or was about to start, before the first
// Restart and stops one that did not.
func (u *Unit) Restore(ctx context.Context) error {
	switch {
	case !u.first:
		return nil
	case u.wanted:
		// Failed starts count towards its limit; what follows is not one of them.
		reset := u.bus.ResetFailedUnitContext(ctx, u.name)
		if err := u.job(ctx, "restart", u.bus.RestartUnitContext); err != nil {
			return errors.Join(err, reset)
		}
		return nil
	}
	return u.job(ctx, "stop", u.bus.StopUnitContext)
}

type starter func(ctx context.Context, name, mode string, done chan<- string) (int, error)

func (u *Unit) job(ctx context.Context, verb string, begin starter) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	done := make(chan string, 1)
	if _, err := begin(ctx, u.name, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, u.name, err)
	}
	hangs := time.NewTimer(stopTimeout)
	defer hangs.Stop()
	for {
		select {
		case result := <-done:
			if result == "done" {
				return nil
			}
			return remedy.Errorf("journalctl -u "+u.name, "%s %s: job %s", verb, u.name, result)
		case <-hangs.C:
			if err := u.endStop(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%s %s: %w", verb, u.name, ctx.Err())
		}
	}
}

// endStop kills what is left of a unit that still stops; its job goes on.
func (u *Unit) endStop(ctx context.Context) error {
	state, err := u.active(ctx)
	if err != nil || state != "deactivating" {
		return err
	}
	err = u.bus.KillUnitWithTarget(ctx, u.name, dbus.All, int32(syscall.SIGKILL))
	if state, again := u.active(ctx); again == nil && state != "deactivating" {
		return nil // it ended by itself
	}
	if err != nil {
		return fmt.Errorf("end %s: %w", u.name, err)
	}
	return nil
}

// Alive looks at ActiveState. A unit that waits for its RestartSec is
// "activating" and does not run.
func (u *Unit) Alive(ctx context.Context) error {
	state, err := u.active(ctx)
	if err != nil || running(state) {
		return err
	}
	return remedy.Errorf("journalctl -u "+u.name, "%s: %w: %s", u.name, ErrNotRunning, state)
}

func running(state string) bool { return state == "active" || state == "reloading" }

func (u *Unit) active(ctx context.Context) (string, error) {
	property, err := u.bus.GetUnitPropertyContext(ctx, u.name, "ActiveState")
	if err != nil {
		return "", fmt.Errorf("unit %s: %w", u.name, err)
	}
	state, _ := property.Value.Value().(string)
	return state, nil
}

// Close ends the connection to the bus.
func (u *Unit) Close() { u.bus.Close() }
