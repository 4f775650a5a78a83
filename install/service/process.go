// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
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
// the default. Everybody can listen on a free port under any name, and the
// account gets the key: who runs it now must be root, the default or the caller.
func (s *Process) lookUpAccount() (account.Account, error) {
	book := account.Of(s.spec.Root)
	if s.spec.User != "" {
		return book.Find(s.spec.User)
	}
	running, err := s.anyRunning()
	if err != nil {
		return account.Account{}, err
	}
	var refused error
	for _, p := range running {
		found, err := s.accountOf(book, p)
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // else it ended in between
			refused = remedy.Errorf("name the user: [certificate.service] user = …; or end the process", "%w", err)
		}
	}
	if refused != nil {
		return account.Account{}, refused
	}
	if s.spec.Default != "" {
		return book.Find(s.spec.Default)
	}
	return book.ByUID(os.Geteuid(), os.Getegid()), nil
}

// accountOf is whom a process runs as, if it is somebody whom nobody else can be.
func (s *Process) accountOf(book account.Book, p process) (account.Account, error) {
	who, err := p.identity()
	if err != nil {
		return account.Account{}, err
	}
	expected := who.UID == 0 || who.UID == os.Geteuid()
	if !expected && s.spec.Default != "" {
		usual, err := book.Find(s.spec.Default)
		expected = err == nil && usual.UID == who.UID
	}
	if !expected {
		return account.Account{}, fmt.Errorf("process %d (%s) runs as user %d, which nothing says it should", p.pid, s.marker, who.UID)
	}
	return book.ByUID(who.UID, who.GID), nil
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

// Environment is what Restart passes on, and the names of what runs now got: who
// started it with a variable relies on it, and a Restart would take it away.
func (s *Process) Environment() []string {
	all := environment(s.runAs)
	running, err := s.anyRunning()
	if err != nil {
		return all
	}
	for _, p := range running {
		if who, err := p.identity(); err == nil && (who.UID == 0 || who.UID == s.runAs.UID) {
			all = append(all, p.variables()...)
		}
	}
	return all
}

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
		s.before, s.first = s.remember(running), true
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
	// A supervisor may have started it again. Whoever else is on the port may be at
	// another address; where not, the service cannot start and says so.
	left, err := listeners(s.spec.Port)
	if err != nil {
		return err
	}
	for _, p := range left {
		if who, err := p.identity(); err == nil && who.UID == s.runAs.UID && p.names(s.marker) {
			return fmt.Errorf("port %d is still taken by process %d after %s was stopped", s.spec.Port, p.pid, s.marker)
		}
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

// Close gives back the outputs of what ran before.
func (s *Process) Close() {
	for _, launch := range s.before {
		if launch.output != nil {
			launch.output.Close()
		}
	}
}

// path resolves a path of the specification inside its root.
func (s *Process) path(name string) string { return filepath.Join(s.spec.Root, name) }
