// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A process is one run of swtpm.
type process struct {
	pid    int
	log    string
	exited chan struct{} // closed when it has ended
	err    error         // how it ended, once exited is closed
}

// launch runs swtpm on the state and sockets of t. With startup it sends itself
// TPM2_Startup(CLEAR).
func launch(t *TPM, startup bool) (*process, error) {
	path, err := program("swtpm")
	if err != nil {
		return nil, err
	}
	flags := "not-need-init"
	if startup {
		flags += ",startup-clear"
	}
	// The device outlives whatever called for it.
	command := exec.CommandContext(context.Background(), path, "socket", "--tpm2",
		"--tpmstate", "dir="+t.state.dir,
		"--server", "type=unixio,mode=0600,path="+t.Socket(),
		"--ctrl", "type=unixio,mode=0600,path="+t.controlSocket(),
		"--log", "file="+t.Log()+",level=1",
		"--flags", flags)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !t.options.Detach {
		command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	p := &process{log: t.Log(), exited: make(chan struct{})}
	started := make(chan error)
	go p.run(command, started)
	return p, <-started
}

// run starts the command and waits for its end on one thread: the kernel sends
// the death signal when the thread that forked ends, not when the process does.
func (p *process) run(command *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := command.Start(); err != nil {
		started <- fmt.Errorf("run swtpm: %w", err)
		return
	}
	p.pid = command.Process.Pid
	started <- nil
	p.err = command.Wait()
	close(p.exited)
}

// await returns when the socket takes connections.
func (p *process) await(socket string) error {
	deadline := time.After(startTimeout)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		if connection, err := dial(socket); err == nil {
			return connection.Close()
		}
		select {
		case <-poll.C:
		case <-p.exited:
			return fmt.Errorf("swtpm ended (%w): %s", p.err, p.lastWords())
		case <-deadline:
			return fmt.Errorf("swtpm does not listen on %s: %s", socket, p.lastWords())
		}
	}
}

// end terminates swtpm as a power cut would: no TPM2_Shutdown comes first.
func (p *process) end() error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-p.exited:
			return nil
		default:
		}
		if err := syscall.Kill(p.pid, signal); err != nil {
			return fmt.Errorf("end swtpm: %w", err)
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(5 * time.Second):
		}
	}
	return fmt.Errorf("end swtpm: process %d does not end", p.pid)
}

// lastWords is the end of swtpm's log.
func (p *process) lastWords() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-500):])
}
