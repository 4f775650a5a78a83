// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Process is a server or one of its plugins.
type Process struct {
	PID     int
	Program string // the file's name
}

// Server is the server's process.
func (n *Node) Server() (Process, error) {
	if !n.Running() {
		return Process{}, fmt.Errorf("%s: %w", n.Name, errEnded)
	}
	return Process{PID: n.cmd.Process.Pid, Program: filepath.Base(n.cluster.config.Bao)}, nil
}

// Plugins are the processes of this node's plugins, children of the server or
// orphans.
func (n *Node) Plugins() ([]Process, error) { return n.processes.find() }

// KillPlugins ends the processes of this node's plugins (KILL).
func (n *Node) KillPlugins() error { return n.processes.kill() }

// RSS is the process's resident memory in bytes.
func (p Process) RSS() (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("process %d has no memory", p.PID)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}

// pluginProcesses are the processes whose program lies in one directory, which
// is one node's alone.
type pluginProcesses struct{ dir string }

func (s pluginProcesses) find() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if program, ok := s.program(pid); ok {
			found = append(found, Process{PID: pid, Program: program})
		}
	}
	return found, nil
}

// program is the file that a process runs, if it is of this directory; a process
// that has ended, or is another user's, is not.
func (s pluginProcesses) program(pid int) (string, bool) {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Dir(exe) != s.dir {
		return "", false
	}
	return strings.TrimSuffix(filepath.Base(exe), " (deleted)"), true
}

func (s pluginProcesses) kill() error {
	found, err := s.find()
	if err != nil {
		return err
	}
	for _, p := range found {
		err = errors.Join(err, s.end(p.PID))
	}
	return err
}

// end kills one process and waits until it is gone. The number is looked at
// again behind a handle, which means this process and no later one.
func (s pluginProcesses) end(pid int) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }()
	if _, ok := s.program(pid); !ok {
		return nil
	}
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill plugin %d: %w", pid, err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if _, there := s.program(pid); !there {
			return nil
		}
	}
	return fmt.Errorf("kill plugin %d: it does not end", pid)
}
