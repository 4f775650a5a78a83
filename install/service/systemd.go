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
	"funlab.casa/omen/install/unitfile"
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
	waited   bool // it was about to be started
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

// firstLoaded returns the unit that runs or, where none does, the first that is
// loaded. One that is there and cannot be used (masked, or with an error in it) is
// named in an error, unless there is another way.
func firstLoaded(ctx context.Context, bus *dbus.Conn, spec Spec) (*Unit, error) {
	candidates := spec.Units
	if spec.Unit != "" {
		candidates = []string{spec.Unit}
	}
	var loaded []string
	var useless error
	for _, name := range candidates {
		state, err := loadState(ctx, bus, name)
		switch {
		case err != nil:
			return nil, err
		case state == "loaded":
			loaded = append(loaded, name)
		case spec.Unit != "" || state != "not-found" && len(spec.Start) == 0:
			useless = errors.Join(useless, cannotUse(name, state))
		}
	}
	if len(loaded) == 0 {
		return nil, useless
	}
	name, err := theOneThatRuns(ctx, bus, loaded)
	if err != nil {
		return nil, err
	}
	return load(ctx, bus, name, account.Of(spec.Root))
}

// ErrSeveral means that a service runs more than once on this host.
var ErrSeveral = errors.New("two units of one service run")

// theOneThatRuns picks the unit that runs, else the first. Several that run are
// ErrSeveral; two names of one unit are one.
func theOneThatRuns(ctx context.Context, bus *dbus.Conn, loaded []string) (string, error) {
	chosen, chosenID := "", ""
	for _, name := range loaded {
		properties, err := bus.GetUnitPropertiesContext(ctx, name)
		if err != nil {
			return "", fmt.Errorf("unit %s: %w", name, err)
		}
		id, _ := properties["Id"].(string)
		state, _ := properties["ActiveState"].(string)
		switch {
		case !running(state) || id == chosenID:
		case chosen != "":
			return "", remedy.Errorf("disable one of them, or name the one to restart: [certificate.service] unit = …", "%w: %s and %s", ErrSeveral, chosen, name)
		default:
			chosen, chosenID = name, id
		}
	}
	if chosen == "" {
		return loaded[0], nil
	}
	return chosen, nil
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
	more, _ := properties["SupplementaryGroups"].([]string)
	if err := unit.findAccount(book, user, group, more); err != nil {
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

// Account is User=, Group= and SupplementaryGroups=; a unit without them runs as root.
func (u *Unit) Account() account.Account { return u.account }

func (u *Unit) findAccount(book account.Book, user, group string, more []string) (err error) {
	if user == "" {
		user = "0"
	}
	if group != "" {
		user += ":" + group
	}
	if u.account, err = book.Find(user); err != nil {
		return err
	}
	for _, name := range more {
		// A group has no look-up of its own: whose group it is does not matter.
		with, err := book.Find("0:" + name)
		if err != nil {
			return err
		}
		u.account.Groups = append(u.account.Groups, with.GID)
	}
	return nil
}

// Environment is the unit's Environment=, and the names in its EnvironmentFile=.
func (u *Unit) Environment() []string { return u.env }

// Executables are the programs of ExecStart=.
func (u *Unit) Executables() []string { return u.programs }

// Restart runs a restart job and waits for its end.
func (u *Unit) Restart(ctx context.Context) error {
	if err := u.note(ctx); err != nil {
		return err
	}
	return u.restart(ctx)
}

// note remembers what ran before the first Restart or Reload.
func (u *Unit) note(ctx context.Context) error {
	state, err := u.active(ctx)
	if err == nil && !u.first {
		// "activating" is most of all a unit that waits for its RestartSec.
		u.waited, u.first = state == "activating", true
		u.wanted = running(state) || u.waited
	}
	return err
}

// restart forgets the starts before: they count towards the unit's limit, and at the
// limit it would be stopped and not started.
func (u *Unit) restart(ctx context.Context) error {
	reset := u.bus.ResetFailedUnitContext(ctx, u.name)
	if err := u.job(ctx, "restart", u.bus.RestartUnitContext); err != nil {
		return errors.Join(err, reset)
	}
	return nil
}

// Restore restarts a unit that ran, or was about to start, before the first
// Restart and stops one that did not.
func (u *Unit) Restore(ctx context.Context) error {
	switch {
	case !u.first:
		return nil
	case u.wanted:
		return u.asItWas(ctx, u.restart(ctx))
	}
	return u.Stop(ctx)
}

// asItWas takes it that a unit which only waited for its next start, since it could
// not start before us either, waits again.
func (u *Unit) asItWas(ctx context.Context, failed error) error {
	if failed == nil || !u.waited {
		return failed
	}
	if state, err := u.active(ctx); err != nil || state != "activating" {
		return errors.Join(failed, err)
	}
	return nil
}

// jobMode is how a job goes along with others. Units that read certificates are ordered
// after the agent's own. While that has a job (it is
// starting, or is stopped in the middle of a renewal), a start of what comes after it
// would wait for that, and that for us: then a job goes by itself.
func jobMode(ctx context.Context, bus *dbus.Conn) string {
	own := Unit{name: unitfile.Agent, bus: bus}
	if busy, err := own.hasJob(ctx); err == nil && busy {
		return "ignore-dependencies"
	}
	return "replace"
}

type starter func(ctx context.Context, name, mode string, done chan<- string) (int, error)

func (u *Unit) job(ctx context.Context, verb string, begin starter) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	done := make(chan string, 1)
	if _, err := begin(ctx, u.name, jobMode(ctx, u.bus), done); err != nil {
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
