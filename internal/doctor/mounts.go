// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"funlab.casa/omen/install/service"
)

// maxMounts bounds what is read of one process' mounts, in bytes.
const maxMounts = 4 << 20

// closedTo are the folders that systemd would leave open to a unit, and that are closed
// to its process: it was started before. A process that sees every mount as we do has no
// sandbox.
func closedTo(u service.State) []string {
	if u.PID == 0 || len(u.Writable) == 0 || mountsOf("self") == mountsOf(fmt.Sprint(u.PID)) {
		return nil
	}
	text, err := readBounded(fmt.Sprintf("/proc/%d/mountinfo", u.PID), maxMounts)
	if err != nil {
		return nil // it has ended, or we are not root
	}
	var closed []string
	for _, folder := range u.Writable {
		if real, err := filepath.EvalSymlinks(folder); err == nil && !writableIn(text, real) {
			closed = append(closed, folder)
		}
	}
	return closed
}

// mountsOf names the mount namespace of a process; "" where it is not told.
func mountsOf(pid string) string {
	name, err := os.Readlink("/proc/" + pid + "/ns/mnt")
	if err != nil {
		return ""
	}
	return name
}

// mountEscapes are what the kernel writes for bytes that would end a field
// (proc_pid_mountinfo(5)).
var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// writableIn reports that a path is on a mount that may be written: the deepest, and of
// two at one place the later.
func writableIn(mountinfo []byte, path string) bool {
	deepest, writable := "", false
	for lines := bufio.NewScanner(bytes.NewReader(mountinfo)); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // number, parent, device, root, place, options
		if len(fields) < 6 {
			continue
		}
		place := mountEscapes.Replace(fields[4])
		if len(place) >= len(deepest) && strings.HasPrefix(path+"/", strings.TrimSuffix(place, "/")+"/") {
			deepest, writable = place, strings.HasPrefix(fields[5]+",", "rw,")
		}
	}
	return writable
}
