// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a command that runs on the host as root, with a plain environment
// that owes nothing to the caller's. Cancelling ctx ends it and what it
// started, but not what made a session of its own.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"-t", strconv.Itoa(h.pid), "-m", "-u", "-p", "--", program}, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// A Result is how a command ended.
type Result struct {
	Args   []string // as on the host
	Code   int      // exit code
	Stdout string
	Stderr string
}

// Run runs a command on the host to its end. A code other than 0 is no error
// here: ask the Result.
func (h *Host) Run(ctx context.Context, program string, args ...string) (Result, error) {
	cmd := h.Command(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	result := Result{Args: append([]string{program}, args...), Stdout: stdout.String(), Stderr: stderr.String()}
	if cmd.ProcessState != nil {
		result.Code = cmd.ProcessState.ExitCode()
	}
	if err != nil {
		return result, fmt.Errorf("%s: run %s: %w", h.Name, program, err)
	}
	return result, nil
}

// Must is Run where a code other than 0 is an error that shows the output.
func (h *Host) Must(ctx context.Context, program string, args ...string) (Result, error) {
	result, err := h.Run(ctx, program, args...)
	if err == nil && result.Code != 0 {
		err = result.Unexpected(h, 0)
	}
	return result, err
}

// Unexpected is the error that a command ended with another code than wanted.
func (r Result) Unexpected(h *Host, wanted int) error {
	output := lastLines(strings.TrimSpace(r.Stdout+"\n"+r.Stderr), 20)
	return fmt.Errorf("%s: %s ended with code %d, not %d:\n%s",
		h.Name, strings.Join(r.Args, " "), r.Code, wanted, output)
}

// A Process is a program that was started on a host and left to run.
type Process struct {
	host  *Host
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts a program on the host in a session of its own, its output at
// the end of the file log on that host.
func (h *Host) Start(log, program string, args ...string) (*Process, error) {
	return h.StartEnv(nil, log, program, args...)
}

// StartEnv is Start with more lines of environment.
func (h *Host) StartEnv(env []string, log, program string, args ...string) (*Process, error) {
	if !h.Exists(log) {
		if err := h.WriteFile(log, nil, 0o640); err != nil {
			return nil, err
		}
	}
	file, err := h.open(log, unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	cmd := h.Command(context.Background(), program, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", h.Name, program, err)
	}
	p := &Process{host: h, name: program, log: log, cmd: cmd, ended: make(chan struct{})}
	go func() { defer close(p.ended); _ = cmd.Wait() }()
	return p, nil
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends a signal to the whole process group.
func (p *Process) Signal(signal syscall.Signal) error {
	return syscall.Kill(-p.cmd.Process.Pid, signal)
}

// Stop sends TERM to the whole process group and waits, KILL after grace.
func (p *Process) Stop(grace time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		err := syscall.Kill(-p.cmd.Process.Pid, signal)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: stop %s: %w", p.host.Name, p.name, err)
		}
		select {
		case <-p.ended:
			return nil
		case <-time.After(grace):
		}
	}
	return fmt.Errorf("%s: %s does not end", p.host.Name, p.name)
}

// Await asks again until ask returns nil, the program has ended, or ctx is
// done; the last answer, and the end of the log, are in the error.
func (p *Process) Await(ctx context.Context, ask func(context.Context) error) error {
	err := Await(ctx, func(ctx context.Context) error {
		select {
		case <-p.ended:
			return errEnded
		default:
			return ask(ctx)
		}
	})
	if err == nil {
		return nil
	}
	text, _ := p.host.ReadFile(p.log)
	return fmt.Errorf("%s: %s: %w; its log %s ends:\n%s", p.host.Name, p.name, err, p.log, lastLines(string(text), 20))
}

var errEnded = errors.New("the program has ended")

// Await asks every 100 ms until ask returns nil or ctx is done; the error then
// is the last answer.
func Await(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
