// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process is one process, identified by number and start time together.
type process struct {
	pid, parent, session int
	state                byte
	start                uint64 // clock ticks since boot
}

// gone reports whether the process does no work any more.
func (p process) gone() bool { return p.state == 'Z' || p.state == 'X' }

// readProcess reads /proc/PID/stat; a process that does not exist is
// fs.ErrNotExist.
func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return process{}, err
	}
	return parseStat(pid, text)
}

// parseStat reads the fields behind the name, which may hold any byte.
func parseStat(pid int, text []byte) (process, error) {
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) < 20 {
		return process{}, fmt.Errorf("process %d: unreadable stat", pid)
	}
	found := process{pid: pid, state: fields[0][0]}
	var errs [3]error
	found.parent, errs[0] = strconv.Atoi(fields[1])
	found.session, errs[1] = strconv.Atoi(fields[3])
	found.start, errs[2] = strconv.ParseUint(fields[19], 10, 64)
	return found, errors.Join(errs[:]...)
}

// allProcesses lists every process that could be read.
func allProcesses() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if found, err := readProcess(pid); err == nil {
			all = append(all, found)
		}
	}
	return all, nil
}

// arguments returns the command line, nil for a zombie or kernel thread.
func (p process) arguments() []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}

// maxCommand bounds what is shown of a process's name, in bytes.
const maxCommand = 64

// command is the name by which people know the process. The process chose it:
// what is shown is short and printable ASCII.
func (p process) command() string {
	arguments := p.arguments()
	if len(arguments) == 0 {
		return "?"
	}
	name := filepath.Base(arguments[0])
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, name[:min(len(name), maxCommand)])
}

// names reports whether the command line has the program as one of its words (a
// script appears behind its interpreter), or the process runs it, whatever it has
// made of its command line.
func (p process) names(program string) bool {
	if path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); err == nil && strings.TrimSuffix(filepath.Base(path), " (deleted)") == program {
		return true
	}
	for _, word := range p.arguments() {
		if filepath.Base(word) == program {
			return true
		}
	}
	return false
}
