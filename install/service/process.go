// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"funlab.casa/omen/install/account"
)

// Process is a service that is started by a command. It implements Controller.
type Process struct {
	spec   Spec
	marker string // the word that names it in a process list
	runAs  account.Account
	before []launch // what ran before the first Restart
	first  bool     // a Restart has recorded it
	child  *child   // what this Process started last
}

func newProcess(spec Spec) (*Process, error) {
	if err := checkStart(spec.Start); err != nil {
		return nil, err
	}
	marker, err := markerOf(spec.Start)
	if err != nil {
		return nil, err
	}
	if spec.PIDFile == "" {
		spec.PIDFile = "/run/omen-agent/" + marker + ".pid"
	}
	s := &Process{spec: spec, marker: marker}
	s.runAs, err = s.lookUpAccount()
	return s, err
}

// lookUpAccount takes the configured user, else the one it runs as now, else
// the default.
func (s *Process) lookUpAccount() (account.Account, error) {
	book := account.Of(s.spec.Root)
	if s.spec.User != "" {
		return book.Find(s.spec.User)
	}
	running, err := s.anyRunning()
	if err != nil {
		return account.Account{}, err
	}
	for _, p := range running {
		uid, gid, err := p.owner()
		if !errors.Is(err, fs.ErrNotExist) { // else it ended in between
			return book.ByUID(uid, gid), err
		}
	}
	if s.spec.Default != "" {
		return book.Find(s.spec.Default)
	}
	return book.ByUID(os.Geteuid(), os.Getegid()), nil
}

// anyRunning is what the pid file means, or else what is found by the port: to
// look at every process of the host takes longer than all the rest.
func (s *Process) anyRunning() ([]process, error) {
	if p, ok := s.fromPIDFile(); ok {
		return []process{p}, nil
	}
	return s.running()
}

// Name is the command's path.
func (s *Process) Name() string { return s.spec.Start[0] }

// Account is whom Restart starts it as.
func (s *Process) Account() account.Account { return s.runAs }

// Environment is what Restart passes on.
func (s *Process) Environment() []string { return environment(s.runAs) }

// Executables are the command, and what runs now.
func (s *Process) Executables() []string {
	paths := []string{s.spec.Start[0]}
	running, err := s.anyRunning()
	if err != nil {
		return paths
	}
	for _, p := range running {
		if path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// Restart stops whatever runs and starts the command.
func (s *Process) Restart(ctx context.Context) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	if !s.first {
		s.before, s.first = remember(running), true
	}
	if err := s.stop(ctx, running); err != nil {
		return err
	}
	return s.start(s.command())
}

// Restore stops what runs now and starts what ran before the first Restart.
func (s *Process) Restore(ctx context.Context) error {
	if !s.first {
		return nil
	}
	running, err := s.running()
	if err != nil {
		return err
	}
	if err := s.stop(ctx, running); err != nil {
		return err
	}
	var errs []error
	for _, launch := range s.before {
		errs = append(errs, s.start(launch))
	}
	return errors.Join(errs...)
}

func (s *Process) stop(ctx context.Context, running []process) error {
	s.child = nil
	if len(running) > 0 {
		if err := stop(ctx, running); err != nil {
			return err
		}
	}
	// A socket whose holder cannot be seen from here may be at another address.
	left, err := listeners(s.spec.Port)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("port %d is still taken by process %d after %s was stopped", s.spec.Port, left[0].pid, s.marker)
	}
	return s.removePIDFile()
}

// Alive looks at the process that was started, else at the process list.
func (s *Process) Alive(context.Context) error {
	if s.child != nil {
		return s.child.alive()
	}
	running, err := s.running()
	if err == nil && len(running) == 0 {
		err = fmt.Errorf("%s: %w", s.marker, ErrNotRunning)
	}
	return err
}

// Close has nothing to release.
func (s *Process) Close() {}

// path resolves a path of the specification inside its root.
func (s *Process) path(name string) string { return filepath.Join(s.spec.Root, name) }
