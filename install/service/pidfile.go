// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxPIDFile bounds what is read of a pid file, in bytes.
const maxPIDFile = 64

// bootSlack covers the rounding of start times, which are kept in ticks.
const bootSlack = 2 * time.Second

// ticksPerSecond is USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// fromPIDFile returns the process that the pid file means: it exists, its
// command line names the program, and it started before the file was written,
// so the number has not been given to another process since.
func (s *Process) fromPIDFile() (process, bool) {
	pid, written, err := readPIDFile(s.path(s.spec.PIDFile))
	if err != nil {
		return process{}, false
	}
	found, err := readProcess(pid)
	if err != nil || found.gone() || protected(found) || !found.names(s.marker) {
		return process{}, false
	}
	started, err := found.startTime()
	if err != nil || started.After(written.Add(bootSlack)) {
		return process{}, false
	}
	return found, true
}

func readPIDFile(path string) (pid int, written time.Time, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, written, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, written, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	ours := ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
	if !ours || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return 0, written, fmt.Errorf("%s: not a file that only root writes", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPIDFile))
	if err != nil {
		return 0, written, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, info.ModTime(), err
}

// startTime is when the process began, by the wall clock.
func (p process) startTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	_, rest, found := bytes.Cut(text, []byte("\nbtime "))
	if !found {
		return time.Time{}, errors.New("/proc/stat has no btime")
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	boot, err := strconv.ParseInt(string(line), 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(boot, 0).Add(time.Duration(p.start) * (time.Second / ticksPerSecond)), nil
}

// writePIDFile puts the number in place in one step, readable by all. What a
// writer that was killed has left goes first.
func (s *Process) writePIDFile(pid int) error {
	path := s.path(s.spec.PIDFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write pid file: %w", err)
	}
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	_, err = fmt.Fprintln(file, pid)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write pid file: %w", err), os.Remove(file.Name()))
	}
	return nil
}

func (s *Process) removePIDFile() error {
	if err := os.Remove(s.path(s.spec.PIDFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pid file: %w", err)
	}
	return nil
}
