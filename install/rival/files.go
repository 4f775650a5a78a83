// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
)

// What is read at most.
const (
	maxFile   = 256 << 10 // bytes of one file; of a longer one the beginning counts
	maxBytes  = 64 << 20  // of all files together
	maxNames  = 8192      // of one folder
	maxReport = 8         // errors
)

// errSpent means that a host has more to read than a search reads.
var errSpent = errors.New("too much to read; the rest is not looked at")

// files reads below one root. It keeps what was read: a script can be started by
// many.
type files struct {
	ctx  context.Context
	root int // descriptor
	left int // bytes
	kept map[string]*text
	dirs map[string][]string
	errs []error
}

// text is one file.
type text struct {
	content    string
	executable bool
}

func openFiles(ctx context.Context, root string) (*files, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	return &files{ctx: ctx, root: fd, left: maxBytes, kept: map[string]*text{}, dirs: map[string][]string{}}, nil
}

func (f *files) close() { unix.Close(f.root) }

func (f *files) open(name string, flags int) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return -1, err
	}
	return beneath.Inside(f.root, name, flags)
}

// stat looks at what a name leads to, nil where nothing is there.
func (f *files) stat(name string) *unix.Stat_t {
	fd, err := f.open(name, unix.O_PATH)
	if err == nil {
		defer unix.Close(fd)
		var stat unix.Stat_t
		if err = unix.Fstat(fd, &stat); err == nil {
			return &stat
		}
	}
	f.report("stat", name, err)
	return nil
}

// read returns a regular file, nil where there is none. Links are followed inside
// the root; nothing but a regular file is opened for reading.
func (f *files) read(name string) *text {
	if known, read := f.kept[name]; read {
		return known
	}
	found, err := f.readNew(name)
	f.kept[name] = found
	f.report("read", name, err)
	return found
}

func (f *files) readNew(name string) (*text, error) {
	found, err := f.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	var stat unix.Stat_t
	if err := unix.Fstat(found, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, err
	}
	if pseudo, err := isPseudo(found); err != nil || pseudo {
		return nil, err
	}
	if f.left <= 0 {
		return nil, errSpent
	}
	// The very file that was looked at. It is not waited for where somebody holds a lease.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	content, err := readText(reader{f.ctx, fd}, min(maxFile, f.left))
	f.left -= len(content)
	return &text{content: string(content), executable: stat.Mode&0o111 != 0}, err
}

// has reports that a folder has an entry of that name.
func (f *files) has(folder, name string) bool {
	_, found := slices.BinarySearch(f.folder(folder), name)
	return found
}

// folder lists a folder, sorted; one that is not there is empty.
func (f *files) folder(name string) []string {
	known, read := f.dirs[name]
	if !read {
		known = f.names(name)
		slices.Sort(known)
		f.dirs[name] = known
	}
	return known
}

func (f *files) names(folder string) []string {
	fd, err := f.open(folder, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		f.report("open", folder, err)
		return nil
	}
	dir := os.NewFile(uintptr(fd), folder)
	defer dir.Close()
	names, err := dir.Readdirnames(maxNames)
	if len(names) == maxNames {
		err = errSpent
	}
	if !errors.Is(err, io.EOF) {
		f.report("read", folder, err)
	}
	return names
}

// report keeps the first errors. Find itself says that the search was ended.
func (f *files) report(op, name string, err error) {
	if err == nil || isAbsent(err) || f.ctx.Err() != nil {
		return
	}
	f.fail(&fs.PathError{Op: op, Path: name, Err: err})
}

func (f *files) fail(err error) {
	if len(f.errs) < maxReport {
		f.errs = append(f.errs, err)
	}
}

// isAbsent: nothing is there, or nothing that could be a file.
func isAbsent(err error) bool {
	for _, none := range []error{fs.ErrNotExist, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.ENXIO, unix.EXDEV} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}
