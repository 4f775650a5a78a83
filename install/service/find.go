// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"funlab.casa/omen/install/remedy"
)

// running returns the top processes of the service: the one in the pid file and
// those above whoever listens on the port. Nobody is no error; nobody but a
// stranger on the port is one. Beside the service a stranger does not matter: at
// another address of the same port everybody can listen.
func (s *Process) running() ([]process, error) {
	var tops []process
	if p, ok := s.fromPIDFile(); ok {
		tops = append(tops, p)
	}
	holders, err := listeners(s.spec.Port)
	if err != nil {
		return nil, err
	}
	var stranger error
	for _, holder := range holders {
		top, ok := climb(holder, s.marker)
		if !ok {
			stranger = remedy.Errorf("end it, or correct start or probe in [certificate.service]",
				"port %d is held by process %d (%s), which is not %s", s.spec.Port, holder.pid, holder.command(), s.marker)
			continue
		}
		if !slices.ContainsFunc(tops, func(p process) bool { return p.pid == top.pid }) {
			tops = append(tops, top)
		}
	}
	if len(tops) == 0 {
		return nil, stranger
	}
	return tops, nil
}

// climb returns the highest of p and its ancestors that names the program,
// below this process. What only lent it its rights (sudo) is taken where there is
// nothing else.
func climb(p process, program string) (process, bool) {
	top, found := process{}, false
	for !protected(p) {
		if p.names(program) {
			if _, err := p.identity(); err == nil || !found {
				top, found = p, true
			}
		}
		parent, err := readProcess(p.parent)
		if err != nil || parent.pid == 0 {
			break
		}
		p = parent
	}
	return top, found
}

// wrappers are programs that only start another one.
var wrappers = []string{"env", "nice", "ionice", "nohup", "setpriv", "sh", "bash", "perl"}

// markerOf returns the word by which a command is recognised in a process list.
func markerOf(start []string) (string, error) {
	for _, word := range start {
		base := filepath.Base(word)
		wrapped := slices.Contains(wrappers, base) || strings.HasPrefix(base, "python")
		if !wrapped && !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") {
			return base, nil
		}
	}
	return "", fmt.Errorf("start = %q names no program", start)
}

// checkStart refuses a command that cannot be what it says.
func checkStart(start []string) error { return checkProgram("start", start) }

func checkProgram(key string, command []string) error {
	if !filepath.IsAbs(command[0]) {
		return remedy.Errorf("give the full path", "%s = %q: not an absolute path", key, command[0])
	}
	info, err := os.Stat(command[0])
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s = %q: not executable", key, command[0])
	}
	return nil
}
