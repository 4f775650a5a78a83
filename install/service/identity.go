// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/account"
)

// errMixed says that a process has rights that are not those of who started it.
var errMixed = errors.New("runs with the rights of more than one user")

// identity returns user, group and supplementary groups of a process. A process
// with the rights of more than one user, or of a setuid program, is an error:
// its command line is of somebody else than the user it runs as.
func (p process) identity() (account.Account, error) {
	program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.pid))
	if err != nil {
		return account.Account{}, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return account.Account{}, err
	}
	uids, errUsers := statusNumbers(text, "Uid:")
	gids, errGroup := statusNumbers(text, "Gid:")
	groups, errGroups := statusNumbers(text, "Groups:")
	if err := errors.Join(errUsers, errGroup, errGroups); err != nil {
		return account.Account{}, fmt.Errorf("process %d: %w", p.pid, err)
	}
	if program.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || !uniform(uids) || !uniform(gids) {
		return account.Account{}, fmt.Errorf("process %d (%s) %w", p.pid, p.command(), errMixed)
	}
	return account.Account{UID: uids[0], GID: gids[0], Groups: groups}, nil
}

// uniform reports that real, effective, saved and file system ID are the same.
func uniform(ids []int) bool {
	return len(ids) == 4 && len(slices.Compact(slices.Clone(ids))) == 1
}

// statusNumbers reads a line of /proc/PID/status.
func statusNumbers(status []byte, name string) ([]int, error) {
	var numbers []int
	for line := range strings.Lines(string(status)) {
		words, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		for _, word := range strings.Fields(words) {
			number, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

// programPath is what to start the process again by. Where argv[0] is a path to
// what runs it counts: a virtual environment is found by it.
func (p process) programPath(first string) (string, error) {
	link := fmt.Sprintf("/proc/%d/exe", p.pid)
	runs, err := os.Stat(link)
	if err != nil {
		return "", err
	}
	if named, err := os.Stat(first); err == nil && filepath.IsAbs(first) && os.SameFile(named, runs) {
		return first, nil
	}
	path, err := os.Readlink(link)
	// An upgrade has put another program in its place since.
	return strings.TrimSuffix(path, " (deleted)"), err
}

// output is what standard output goes to where that is a file, nil where not. It
// is the very descriptor, with no more rights than the process had: root opening
// the path again could be made to open another file, or for writing what the
// process could only read.
func (p process) output() *os.File {
	fd, ok := p.open()
	if !ok {
		return nil
	}
	defer unix.Close(fd)
	got, err := unix.PidfdGetfd(fd, 1, 0)
	if err != nil {
		return nil
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", got))
	file := os.NewFile(uintptr(got), path)
	flags, errFlags := unix.FcntlInt(uintptr(got), unix.F_GETFL, 0)
	info, errStat := file.Stat()
	if errors.Join(err, errFlags, errStat) != nil || !info.Mode().IsRegular() || flags&unix.O_ACCMODE == unix.O_RDONLY {
		file.Close()
		return nil
	}
	return file
}
