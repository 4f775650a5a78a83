// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// node is the file that stands for a device, and false for one that is none.
func (p *patient) node() (path string, isFile bool) {
	device := p.device()
	if socket, found := strings.CutPrefix(device, "unix:"); found {
		return socket, true
	}
	return device, strings.HasPrefix(device, "/")
}

// checkAccess looks at the device, and at the one without resource manager beside it.
func checkAccess(_ context.Context, p *patient) []Result {
	path, isFile := p.node()
	if !isFile {
		return warning(p.device(), "bind it to an address that only this host reaches", "a network socket: who reaches it may use the TPM")
	}
	paths := []string{path}
	if number, managed := strings.CutPrefix(path, "/dev/tpmrm"); managed {
		paths = append(paths, "/dev/tpm"+number)
	}
	return eachOf(paths, "there is no such device", p.access)
}

func (p *patient) access(path string) []Result {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return p.failed(path, err)
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return nil
	}
	mode := info.Mode().Perm()
	seen := fmt.Sprintf("mode %04o, user %d", mode, stat.Uid)
	if mode&0o060 != 0 {
		seen += ", group " + p.group(int(stat.Gid))
	}
	if mode&0o006 != 0 && passable(filepath.Dir(path)) {
		return warning(path, "chmod o-rw "+path+"; of a device by a rule of udev too, or the next boot brings it back", "%s: everybody on this host may use it", seen)
	}
	return ok(path, "%s", seen)
}

// passable reports that everybody may pass a folder: to connect to a socket takes the
// way to it as well.
func passable(folder string) bool {
	for ; ; folder = filepath.Dir(folder) {
		info, err := os.Stat(folder)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if folder == "/" {
			return true
		}
	}
}

// maxAccounts bounds the group file, in bytes.
const maxAccounts = 1 << 20

// group is a group and its members: those whom group(5) lists, and those whose first
// group it is, as passwd(5) says.
func (p *patient) group(gid int) string {
	text, err := readBounded(p.under("/etc/group"), maxAccounts)
	if err != nil {
		return strconv.Itoa(gid)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) == 4 && fields[2] == strconv.Itoa(gid) {
			members := strings.FieldsFunc(fields[3], func(r rune) bool { return r == ',' })
			return fmt.Sprintf("%s (members: %s)", fields[0], listed(append(members, p.firstIn(fields[2])...)))
		}
	}
	return strconv.Itoa(gid)
}

// firstIn are the users whose first group this is.
func (p *patient) firstIn(gid string) []string {
	text, err := readBounded(p.under("/etc/passwd"), maxAccounts)
	if err != nil {
		return nil
	}
	var users []string
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) == 7 && fields[3] == gid {
			users = append(users, fields[0])
		}
	}
	return users
}

func listed(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// checkHolders looks who has the device open. A resource manager shares it out, but
// not with a program that has it without one.
func checkHolders(_ context.Context, p *patient) []Result {
	path, isFile := p.node()
	if !isFile {
		return notApplicable("%s is no file: who is connected cannot be seen", p.device())
	}
	watched := []string{path}
	if number, managed := strings.CutPrefix(path, "/dev/tpmrm"); managed {
		watched = []string{"/dev/tpm" + number}
	} else if strings.HasPrefix(p.device(), "unix:") {
		watched = []string{path + ".lock"} // what a program of ours holds with it
	}
	var results []Result
	for _, one := range watched {
		for _, holder := range holders(one) {
			results = append(results, warning(one, "", "held by %s: commands wait, or find no room", holder)...)
		}
	}
	if len(results) == 0 {
		return ok(path, "nobody holds it for itself")
	}
	return results
}

// holders are the processes that have a file open, but for this one.
func holders(path string) []string {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil
	}
	var found []string
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != path {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := readBounded("/proc/"+pid+"/comm", 64)
		if holder := fmt.Sprintf("process %s (%s)", pid, bytes.TrimSpace(name)); err == nil && pid != strconv.Itoa(os.Getpid()) && !slices.Contains(found, holder) {
			found = append(found, holder)
		}
	}
	return found
}

// readBounded reads a small regular file; it waits for no pipe.
func readBounded(path string, limit int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a regular file", path), err)
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return text, err
}

func uid(info os.FileInfo) int {
	if stat, known := info.Sys().(*syscall.Stat_t); known {
		return int(stat.Uid)
	}
	return 0
}
