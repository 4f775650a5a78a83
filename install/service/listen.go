// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listening is the state of a listening socket in /proc/net/tcp.
const listening = "0A"

// listeners returns the processes that hold a socket listening on a TCP port of
// this network namespace; port 0 has none.
func listeners(port int) ([]process, error) {
	sockets := listeningSockets(port)
	if len(sockets) == 0 {
		return nil, nil
	}
	all, err := allProcesses()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, candidate := range all {
		if candidate.holds(sockets) {
			found = append(found, candidate)
		}
	}
	return found, nil
}

// listeningSockets returns "socket:[inode]" of each, as /proc/PID/fd shows it.
func listeningSockets(port int) map[string]bool {
	sockets := map[string]bool{}
	if port == 0 {
		return sockets
	}
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == listening {
				sockets["socket:["+fields[9]+"]"] = true
			}
		}
	}
	return sockets
}

func (p process) holds(sockets map[string]bool) bool {
	dir := filepath.Join("/proc", strconv.Itoa(p.pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && sockets[target] {
			return true
		}
	}
	return false
}
