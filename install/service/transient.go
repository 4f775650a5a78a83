// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/unitfile"
)

// transientSlack is what systemd gets beyond a command's own time to end it, and to
// answer.
const transientSlack = 5 * time.Second

// inOwnUnit reports that this process is the agent's service, and not somebody's command
// in a shell: it has the sandbox of the unit, which a command of root's does not fit in.
func inOwnUnit() bool {
	groups, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && booted() && isOwnUnit(string(groups))
}

// isOwnUnit looks for the agent's unit in /proc/PID/cgroup: in the one hierarchy, or in
// systemd's own. A user's manager has units of that name for itself.
func isOwnUnit(groups string) bool {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 || parts[1] != "" && parts[1] != "name=systemd" {
			continue
		}
		if path.Base(parts[2]) == unitfile.Agent && !strings.Contains(parts[2], "/user@") {
			return true
		}
	}
	return false
}

// transient is a unit that systemd makes for one command, and forgets. It is outside of
// our sandbox, so that ours can stay.
type transient struct {
	name string
	bus  *dbus.Conn
}

// runUnit runs the command as a unit of its own.
func (r Reload) runUnit(ctx context.Context) error {
	conn, err := connect(ctx)
	if err != nil {
		return fmt.Errorf("reload by %s: connect to systemd: %w", r.Command[0], err)
	}
	defer conn.Close()
	words, err := listen()
	if err != nil {
		return fmt.Errorf("reload by %s: %w", r.Command[0], err)
	}
	t := transient{name: "omen-agent-reload-" + strings.ToLower(rand.Text()) + ".service", bus: conn}
	err = t.run(ctx, transientOf(r.Command, words.write), words)
	if said := words.end(); err != nil {
		return fmt.Errorf("reload by %s: %w%s", r.Command[0], err, said)
	}
	return nil
}

// transientOf is the unit of a command that says its words to a descriptor. What the
// command leaves running ends with it, and by KILL: to wait for what does not hear TERM
// would make a failure of a command that succeeded.
func transientOf(command []string, words int) []dbus.Property {
	set := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	return []dbus.Property{
		dbus.PropDescription("Reload for " + unitfile.Agent + ": " + command[0]),
		dbus.PropType("oneshot"),
		set("ExecStart", []execStart{{command[0], literal(command), false}}),
		set("Environment", environment(account.Account{Name: "root", Home: "/root"})),
		set("WorkingDirectory", "/"),
		set("StandardOutputFileDescriptor", godbus.UnixFD(words)),
		set("StandardErrorFileDescriptor", godbus.UnixFD(words)),
		set("TimeoutStartUSec", uint64(commandTime.Microseconds())),
		set("KillMode", "control-group"),
		set("KillSignal", int32(syscall.SIGKILL)),
		// A shutdown waits for the agent, and the agent for this.
		set("DefaultDependencies", false),
	}
}

// execStart is a command, a(sasb) in org.freedesktop.systemd1(5): a path, which is taken
// as it is, and all words.
type execStart struct {
	Path    string
	Words   []string
	Ignored bool // how it ends
}

// literal keeps systemd from reading variables into the words of a command.
func literal(command []string) []string {
	words := make([]string, 0, len(command))
	for _, word := range command {
		words = append(words, strings.ReplaceAll(word, "$", "$$"))
	}
	return words
}

// run starts the unit and waits for its end, or ends it.
func (t transient) run(ctx context.Context, properties []dbus.Property, words *words) error {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime+2*transientSlack)
	defer cancel()
	ctx, cancelWait := context.WithTimeout(ctx, commandTime+transientSlack)
	defer cancelWait()
	done := make(chan string, 1)
	mode := jobMode(ctx, t.bus)
	_, err := t.bus.StartTransientUnitContext(ctx, t.name, mode, properties, done)
	words.closeWrite() // systemd has its own
	switch {
	case ctx.Err() != nil: // it may run all the same
		return errors.Join(ctx.Err(), t.stop(after))
	case err != nil:
		return err
	}
	select {
	case result := <-done:
		return t.outcome(after, result)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), t.stop(after))
	}
}

// outcome is what came of the command. Of a unit that failed systemd keeps the cause
// until it is told to forget it; CollectMode=inactive-or-failed would forget it before
// we can ask.
func (t transient) outcome(ctx context.Context, result string) error {
	if result == "done" {
		return nil
	}
	properties, err := t.bus.GetUnitTypePropertiesContext(ctx, t.name, "Service")
	if err != nil {
		return fmt.Errorf("job %s: %w", result, err)
	}
	t.forget(ctx)
	return remedy.Errorf("journalctl -u "+t.name, "%w", ended(result, properties))
}

// ended says in the words of package os how the command of a failed unit ended.
func ended(job string, properties map[string]any) error {
	result, _ := properties["Result"].(string)
	status, _ := properties["ExecMainStatus"].(int32)
	switch result {
	case "exit-code":
		return fmt.Errorf("exit status %d", status)
	case "signal", "core-dump":
		return fmt.Errorf("signal: %v", syscall.Signal(status))
	case "timeout":
		return fmt.Errorf("%w: ended after %v", context.DeadlineExceeded, commandTime)
	}
	return fmt.Errorf("job %s, result %s", job, result)
}

// stop ends the unit with all that is in it. One that is not there had not begun, or has
// ended.
func (t transient) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, transientSlack)
	defer cancel()
	done := make(chan string, 1)
	var failed godbus.Error
	switch _, err := t.bus.StopUnitContext(ctx, t.name, "replace", done); {
	case errors.As(err, &failed) && failed.Name == "org.freedesktop.systemd1.NoSuchUnit":
		return nil
	case err != nil:
		return fmt.Errorf("stop %s: %w", t.name, err)
	}
	select {
	case <-done:
		t.forget(ctx)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", t.name, ctx.Err())
	}
}

// forget lets go of a unit that failed. Another one is gone already.
func (t transient) forget(ctx context.Context) { _ = t.bus.ResetFailedUnitContext(ctx, t.name) }

// words are what a command says to a pipe of which systemd holds the other end.
type words struct {
	said  tail
	read  *os.File
	write int // -1 once closed
	done  chan struct{}
}

// listen makes the pipe and reads it: a full one would stop the command.
func listen() (*words, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// Of our end alone: the command is not to get one that does not block.
	if err := unix.SetNonblock(ends[0], true); err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), unix.Close(ends[0]), unix.Close(ends[1]))
	}
	w := &words{read: os.NewFile(uintptr(ends[0]), "pipe"), write: ends[1], done: make(chan struct{})}
	go func() {
		defer close(w.done)
		// An error is the end, or that nobody waits for it.
		_, _ = w.said.ReadFrom(w.read)
	}()
	return w, nil
}

func (w *words) closeWrite() {
	if w.write >= 0 {
		unix.Close(w.write)
		w.write = -1
	}
}

// end is the last words. The command has ended by now, but what has left its unit may
// hold the pipe.
func (w *words) end() string {
	w.closeWrite()
	_ = w.read.SetReadDeadline(time.Now().Add(time.Second)) // a pipe that does not block has one
	<-w.done
	w.read.Close()
	return w.said.end()
}
