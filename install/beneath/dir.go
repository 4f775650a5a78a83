// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Close it after use.
type Dir struct {
	file *os.File
	path string // for messages only
}

// Open opens the directory path inside root. Links on the way are followed but
// cannot leave root: the way down to a state directory is the administrator's.
func Open(root, path string) (*Dir, error) {
	shown := filepath.Join(root, path)
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(base)
	fd, err := Inside(base, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	return &Dir{file: os.NewFile(uintptr(fd), shown), path: shown}, nil
}

// Close gives the descriptor back.
func (d *Dir) Close() error { return d.file.Close() }

// Path is the directory's path as it was opened, for messages.
func (d *Dir) Path() string { return d.path }

// FD is the descriptor, valid until Close.
func (d *Dir) FD() int { return int(d.file.Fd()) }

// Sub opens the directory name.
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Dir{file: os.NewFile(uintptr(fd), name), path: d.at(name)}, nil
}

// Make creates the directory name with this mode and owner and opens it; one
// that exists is fs.ErrExist.
func (d *Dir) Make(name string, mode uint32, uid, gid int) (*Dir, error) {
	if err := d.check("mkdir", name); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(d.FD(), name, 0o700); err != nil {
		return nil, d.fail("mkdir", name, err)
	}
	sub, err := d.Sub(name)
	if err != nil {
		return nil, err
	}
	if err := sub.Chown(mode, uid, gid); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// Chown sets owner and mode of the directory itself.
func (d *Dir) Chown(mode uint32, uid, gid int) error {
	return own(d.FD(), d.path, mode, uid, gid)
}

// own sets owner and mode through a descriptor; the owner first, because
// chown clears bits of the mode.
func own(fd int, path string, mode uint32, uid, gid int) error {
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

// InMemory reports that what is written into the directory is kept in memory alone.
func (d *Dir) InMemory() (bool, error) {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(d.FD(), &stat); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	return stat.Type == unix.TMPFS_MAGIC || stat.Type == unix.RAMFS_MAGIC, nil
}

// Sync makes the directory's entries durable.
func (d *Dir) Sync() error { return d.file.Sync() }

// Names lists the entries, sorted.
func (d *Dir) Names() ([]string, error) {
	fd, err := openName(d.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, d.fail("open", ".", err)
	}
	again := os.NewFile(uintptr(fd), d.path)
	defer again.Close()
	entries, err := again.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	return sortedNames(entries), nil
}

func (d *Dir) open(name string, flags int, mode uint32) (int, error) {
	if err := d.check("open", name); err != nil {
		return -1, err
	}
	fd, err := openName(d.FD(), name, flags, mode)
	if err != nil {
		return -1, d.fail("open", name, err)
	}
	return fd, nil
}

func (d *Dir) at(name string) string { return d.path + "/" + name }

func (d *Dir) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: d.at(name), Err: err}
}

// check refuses names that are not one plain component.
func (d *Dir) check(op, name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return d.fail(op, name, fs.ErrInvalid)
	}
	return nil
}
