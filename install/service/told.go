// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

// Told is a service that is reloaded and never stopped or started: somebody else
// does that. It implements Controller.
type Told struct {
	spec    Spec
	account account.Account
	process *Process // to find it by its pid file
}

// newTold makes the controller of a specification that has a way to reload and none
// to start.
func newTold(spec Spec) (*Told, error) {
	if err := spec.Reload.check(spec.Program); err != nil {
		return nil, err
	}
	t := &Told{spec: spec, process: &Process{spec: spec, marker: spec.Program}}
	if spec.Reload.Signal != "" && (spec.PIDFile == "" || spec.Program == "") {
		return nil, remedy.Errorf("pid_file in [certificate.service], and the program's name", "signal %s without a pid file and a program", spec.Reload.Signal)
	}
	user := spec.User
	if user == "" {
		user = spec.Default
	}
	if user == "" {
		user = "0"
	}
	var err error
	t.account, err = account.Of(spec.Root).Find(user)
	return t, err
}

// Name is the command, or the pid file.
func (t *Told) Name() string {
	if len(t.spec.Reload.Command) > 0 {
		return t.spec.Reload.Command[0]
	}
	return t.spec.PIDFile
}

// Account is the configured user, else root.
func (t *Told) Account() account.Account { return t.account }

// Environment is not known.
func (t *Told) Environment() []string { return nil }

// Executables are not known.
func (t *Told) Executables() []string { return nil }

// Reload does what the specification or how says.
func (t *Told) Reload(ctx context.Context, how Reload) error {
	if how.IsZero() {
		how = t.spec.Reload
	}
	if err := how.check(t.spec.Program); err != nil {
		return err
	}
	if len(how.Command) > 0 {
		return how.run(ctx)
	}
	return t.process.signal(signals[how.Signal])
}

// Restart reloads: there is no other way.
func (t *Told) Restart(ctx context.Context) error { return t.Reload(ctx, t.spec.Reload) }

// Restore reloads what is back on the disk.
func (t *Told) Restore(ctx context.Context) error { return t.Reload(ctx, t.spec.Reload) }

// Stop does nothing: whoever starts it stops it.
func (t *Told) Stop(context.Context) error { return nil }

// Startable looks at the command, or for the process.
func (t *Told) Startable(ctx context.Context, _ []string) error {
	if err := t.spec.Reload.check(t.spec.Program); err != nil {
		return err
	}
	return t.Alive(ctx)
}

// Started is not known.
func (t *Told) Started(context.Context, Moment) (bool, error) { return false, nil }

// Since is not known where nothing tells which process it is.
func (t *Told) Since(context.Context) (time.Time, error) {
	if p, found := t.process.fromPIDFile(); found && t.spec.Program != "" {
		return p.started()
	}
	return time.Time{}, fmt.Errorf("%s: no process is known", t.Name())
}

// Alive is known only by a pid file.
func (t *Told) Alive(context.Context) error {
	if t.spec.PIDFile == "" || t.spec.Program == "" {
		return nil
	}
	if _, found := t.process.fromPIDFile(); !found {
		return fmt.Errorf("%s: %w", t.spec.PIDFile, ErrNotRunning)
	}
	return nil
}

// Close does nothing.
func (t *Told) Close() {}
