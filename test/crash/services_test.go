// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// servant is a running stand-in.
type servant struct {
	pid     int
	address string
}

// servants are the stand-ins of this host, also those whose installer was killed
// before it wrote their numbers down.
func (h *host) servants() ([]servant, error) {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []servant
	for _, path := range commands {
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), space()+"/bin/keylime_") || !strings.Contains(string(text), h.root+"/") {
			continue // another process, or it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		found = append(found, servant{pid: pid, address: strings.Split(string(text), "\x00")[2]})
	}
	return found, nil
}

// stopServices ends them.
func (h *host) stopServices() error {
	found, err := h.servants()
	for _, s := range found {
		if bad := syscall.Kill(s.pid, syscall.SIGKILL); !errors.Is(bad, syscall.ESRCH) {
			err = errors.Join(err, bad)
		}
	}
	return err
}

// waitForServices waits until every stand-in that runs listens: whoever starts a
// killed installer again is not faster than a service that it had just started.
func (h *host) waitForServices() error {
	if !h.services {
		return nil
	}
	end := time.Now().Add(30 * time.Second)
	for now := range time.Tick(10 * time.Millisecond) {
		if now.After(end) {
			break
		}
		found, err := h.servants()
		if err != nil {
			return err
		}
		waiting := 0
		for _, s := range found {
			conn, err := net.DialTimeout("tcp", s.address, time.Second)
			if err != nil {
				waiting++
				continue
			}
			conn.Close()
		}
		if waiting == 0 {
			return nil
		}
	}
	return errors.New("a service does not listen")
}
