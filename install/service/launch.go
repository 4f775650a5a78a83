// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

// launch is one way to start a program.
type launch struct {
	arguments   []string
	directory   string
	environment []string
	log         string   // absolute path, "" for none
	output      *os.File // instead of log; open until Close
	account     account.Account
}

// child is a process that we started and whose end we notice.
type child struct {
	name  string
	log   string
	ended chan struct{}
	state *os.ProcessState // valid once ended is closed
}

func (c *child) alive() error {
	select {
	case <-c.ended:
		hint := "start it by hand and read what it says, or configure log in [certificate.service]"
		if c.log != "" {
			hint = "read the end of " + c.log
		}
		return remedy.Errorf(hint, "%s: %w: %s", c.name, ErrNotRunning, c.state)
	default:
		return nil
	}
}

// environment is all that a service gets from us: nothing of ours is for it.
func environment(who account.Account) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"HOME=" + who.Home,
		"USER=" + who.Name,
		"LOGNAME=" + who.Name,
	}
}

func (s *Process) command() launch {
	next := launch{arguments: s.spec.Start, directory: "/", environment: environment(s.runAs), account: s.runAs}
	if s.spec.Log != "" {
		next.log = s.path(s.spec.Log)
	}
	return next
}

// remember notes how processes could be started again as they are. One that has
// given up its rights could not start again with those it has left, and what it
// says of itself is not for root to run: it comes back by the command.
func (s *Process) remember(running []process) []launch {
	if s.spec.Drops && len(running) > 0 {
		return []launch{s.command()}
	}
	var launches []launch
	for _, p := range running {
		if found, err := p.launch(); err == nil {
			launches = append(launches, found)
		}
	}
	return launches
}

func (p process) launch() (launch, error) {
	proc := fmt.Sprintf("/proc/%d/", p.pid)
	environ, errEnviron := os.ReadFile(proc + "environ")
	directory, errDir := os.Readlink(proc + "cwd")
	who, errIdentity := p.identity()
	arguments := p.arguments()
	if err := errors.Join(errEnviron, errDir, errIdentity); err != nil {
		return launch{}, err
	}
	if len(arguments) == 0 {
		return launch{}, fmt.Errorf("process %d: no command line", p.pid)
	}
	var err error
	if arguments[0], err = p.programPath(arguments[0]); err != nil {
		return launch{}, err
	}
	again := launch{
		arguments: arguments, directory: directory, output: p.output(), account: who,
		environment: strings.Split(strings.TrimRight(string(environ), "\x00"), "\x00"),
	}
	if again.output != nil {
		again.log = again.output.Name()
	}
	return again, nil
}

// start runs l in a session of its own and writes the pid file.
func (s *Process) start(l launch) error {
	command := &exec.Cmd{ // no context: the service outlives whoever starts it
		Path: l.arguments[0], Args: l.arguments, Dir: l.directory, Env: l.environment,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Credential: credential(l.account)},
	}
	log := l.output
	if log == nil {
		opened, err := openLog(l.log)
		if err != nil {
			return err
		}
		defer opened.Close() // of a nil file it does nothing
		log = opened
	}
	if log != nil {
		command.Stdout, command.Stderr = log, log
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", l.arguments[0], err)
	}
	s.child = &child{name: s.marker, log: l.log, ended: make(chan struct{})}
	go s.child.reap(command)
	return s.writePIDFile(command.Process.Pid)
}

// reap waits for the end of a child, however long it lives.
func (c *child) reap(command *exec.Cmd) {
	// The error is the exit status, which the state holds too.
	_ = command.Wait()
	c.state = command.ProcessState
	close(c.ended)
}

// credential is nil when nothing has to change, so that a caller who is not
// root can start services as itself.
func credential(who account.Account) *syscall.Credential {
	if who.UID == os.Geteuid() && os.Geteuid() != 0 {
		return nil
	}
	groups := make([]uint32, 0, len(who.Groups))
	for _, group := range who.Groups {
		groups = append(groups, uint32(group))
	}
	return &syscall.Credential{Uid: uint32(who.UID), Gid: uint32(who.GID), Groups: groups}
}

// openLog opens a log for appending. A link there or on the way, or anything but
// a file with one name, is an error: the folder may belong to the service's user.
func openLog(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	how := unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Mode:  0o640, Resolve: unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if errors.Is(err, unix.ELOOP) {
		return nil, remedy.Errorf("give the path without links", "open log %s: a link is on the way", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	log := os.NewFile(uintptr(fd), path)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1 {
		return nil, errors.Join(fmt.Errorf("open log %s: not a regular file with one name", path), err, log.Close())
	}
	return log, nil
}
