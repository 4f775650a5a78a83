// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// fileCalls are the system calls that name, open or change files.
const fileCalls = "openat,openat2,write,fsync,fdatasync,rename,renameat,renameat2,symlink,symlinkat,link,linkat," +
	"fchown,fchownat,fchmod,fchmodat,mkdir,mkdirat,unlink,unlinkat,rmdir,ftruncate"

// result is what came of one run of the program.
type result struct {
	err    error // nil for exit code 0
	killed bool
	stdout string
	stderr string
}

// said is what a failure has to add to its own words.
func (r result) said() string {
	if r.err == nil {
		return saying + "nothing, and ended well"
	}
	return saying + r.err.Error()
}

// proven tells that the new set may count as proven: its probe had returned, or it
// had got as far as to take the journal away.
func (h *host) proven(stdout string) bool {
	if strings.Contains(stdout, SaysProven) {
		return true
	}
	_, err := os.Lstat(h.root + "/var/lib/omen-agent/keylime/journal")
	return strings.Contains(stdout, SaysProbing) && errors.Is(err, fs.ErrNotExist)
}

// run performs an order, undisturbed.
func (h *host) run(o Order) result { return h.start(o) }

// trace performs an order and returns the file-system calls that it made.
// disturb are further arguments of strace.
func (h *host) trace(o Order, disturb ...string) (result, []call, error) {
	log := h.root + ".log"
	arguments := append([]string{"strace", "-o", log, "-y", "-xx", "-s", "131072", "-e", "trace=" + fileCalls}, disturb...)
	r := h.start(o, arguments...)
	text, err := os.ReadFile(log)
	if err != nil {
		return r, nil, errors.Join(err, r.err)
	}
	calls, err := parseLog(string(text))
	for at := range calls {
		calls[at].root = h.root
	}
	return r, calls, err
}

// start performs an order under another program's eyes.
func (h *host) start(o Order, before ...string) result {
	path := h.root + ".order"
	if err := o.write(path); err != nil {
		return result{err: err}
	}
	return once(append(before, program("once"), path))
}

func (o Order) write(path string) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func once(words []string) result {
	command := exec.Command(words[0], words[1:]...)
	// One thread at a time, and no signal that interrupts a call.
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off"}
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	r := result{err: err, stdout: stdout.String(), stderr: stderr.String()}
	if err != nil {
		r.killed = command.ProcessState != nil && command.ProcessState.ExitCode() < 0
		r.err = fmt.Errorf("%w: %s", err, strings.TrimSpace(r.stderr))
	}
	return r
}
