// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// RunLog is where a Daemon logs, on its host.
const RunLog = "/var/log/omen-agent.log"

const runPID = "/run/run.pid"

// A Daemon is omen-agent run on a host.
type Daemon struct {
	host *Host
	cmd  *exec.Cmd
}

// StartDaemon starts omen-agent run, its log in RunLog.
func (h *Host) StartDaemon(ctx context.Context) (*Daemon, error) {
	if _, err := h.Must(ctx, "rm", "-f", RunLog, runPID); err != nil { // of one before
		return nil, err
	}
	// The shell says under which number the host knows the process that it becomes.
	const command = "echo $$ > " + runPID + "; exec /usr/bin/omen-agent run > " + RunLog + " 2>&1"
	d := &Daemon{host: h, cmd: h.Command(ctx, "sh", "-c", command)}
	return d, d.cmd.Start()
}

// Signal sends a signal by its name.
func (d *Daemon) Signal(ctx context.Context, name string) error {
	pid, err := d.host.ReadFile(runPID)
	if err == nil {
		_, err = d.host.Must(ctx, "kill", "-"+name, strings.TrimSpace(string(pid)))
	}
	return err
}

// Terminate sends TERM and gives the exit code.
func (d *Daemon) Terminate(ctx context.Context) (int, error) {
	if err := d.Signal(ctx, "TERM"); err != nil {
		return 0, err
	}
	err := d.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return d.cmd.ProcessState.ExitCode(), err
}

// AwaitSaid waits until the log of a Daemon holds a text.
func (h *Host) AwaitSaid(ctx context.Context, longest time.Duration, want string) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	return Await(ctx, func(context.Context) error { return h.Said(want) })
}

// Said is an error where the log of a Daemon does not hold a text.
func (h *Host) Said(want string) error {
	text, err := h.ReadFile(RunLog)
	if err == nil && !strings.Contains(string(text), want) {
		err = fmt.Errorf("no %q in the log of omen-agent run:\n%s", want, text)
	}
	return err
}
