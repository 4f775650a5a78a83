// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

// Reload says how a service is told to read its files again. The zero value is the
// unit's own way, by ExecReload=, and a restart where it has none.
type Reload struct {
	Command []string // run as root, Command[0] absolute; no shell reads it
	Signal  string   // "HUP", "USR1" or "USR2", to the process in the pid file
}

// IsZero reports that nothing is said.
func (r Reload) IsZero() bool { return len(r.Command) == 0 && r.Signal == "" }

// What a reload command may take and say.
const (
	commandTime   = 30 * time.Second
	commandOutput = 64 << 10 // bytes
	commandShown  = 512      // of its end, in an error
)

// signals are those by which programs are told to read their files again.
var signals = map[string]unix.Signal{"HUP": unix.SIGHUP, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2}

// ErrNoReload means that a service must be restarted to read its files again.
var ErrNoReload = errors.New("does not read its files again")

// check refuses what cannot be done, and what would kill: of Keylime nothing hears
// a signal but as its end.
func (r Reload) check(program string) error {
	switch {
	case r.IsZero():
		return nil
	case isKeylime(program):
		return fmt.Errorf("%s %w: it is restarted", program, ErrNoReload)
	case len(r.Command) > 0 && r.Signal != "":
		return remedy.Errorf("give one of them", "reload command and signal")
	case len(r.Command) > 0:
		return checkProgram("reload command", r.Command)
	}
	if _, known := signals[r.Signal]; !known {
		return remedy.Errorf("HUP, USR1 or USR2", "signal %q", r.Signal)
	}
	return nil
}

// isKeylime names Keylime's services, by unit or program.
func isKeylime(name string) bool { return strings.HasPrefix(name, "keylime") }

// run runs the command as root, with nothing of our environment, and of our sandbox.
func (r Reload) run(ctx context.Context) error {
	if inOwnUnit() {
		return r.runUnit(ctx)
	}
	return r.runChild(ctx)
}

// runChild runs the command as a process of ours.
func (r Reload) runChild(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	command := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	command.Dir, command.Env = "/", environment(account.Account{Name: "root", Home: "/root"})
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return unix.Kill(-command.Process.Pid, unix.SIGKILL) }
	command.WaitDelay = time.Second // for who has left the group and holds the output
	said := &tail{}
	command.Stdout, command.Stderr = said, said
	err := command.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("reload by %s: %w", r.Command[0], ctx.Err())
	}
	return fmt.Errorf("reload by %s: %w%s", r.Command[0], err, said.end())
}

// tail keeps the end of what is written to it and takes everything.
type tail struct{ bytes.Buffer }

// Write never fails: a full pipe would stop the command.
func (t *tail) Write(text []byte) (int, error) {
	if t.Len()+len(text) > commandOutput {
		t.Next(min(t.Len(), len(text)))
	}
	_, err := t.Buffer.Write(text[max(0, len(text)-commandOutput):])
	return len(text), err
}

// end is the last words, for an error: printable, in one line.
func (t *tail) end() string {
	text := strings.ToValidUTF8(t.String(), "?")
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text))
	if text == "" {
		return ""
	}
	return ": " + text[max(0, len(text)-commandShown):]
}

// ReadFrom keeps io.Copy from going around Write.
func (t *tail) ReadFrom(from io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{t}, from)
}

// Reload has the process in the pid file, or a command, do it. One that does not run
// is started.
func (s *Process) Reload(ctx context.Context, how Reload) error {
	if err := how.check(s.marker); err != nil {
		return err
	}
	running, err := s.running()
	if err != nil {
		return err
	}
	if how.IsZero() || len(running) == 0 {
		return s.Restart(ctx)
	}
	if len(how.Command) > 0 {
		return how.run(ctx)
	}
	return s.signal(signals[how.Signal])
}

func (s *Process) signal(signal unix.Signal) error {
	p, found := s.fromPIDFile()
	if !found {
		return remedy.Errorf("correct pid_file in [certificate.service]", "%s: %s names no process of it", s.marker, s.spec.PIDFile)
	}
	return p.tell(signal)
}

// tell sends one signal to the very process.
func (p process) tell(signal unix.Signal) error {
	fd, ok := p.open()
	if !ok {
		return fmt.Errorf("process %d: %w", p.pid, ErrNotRunning)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}
