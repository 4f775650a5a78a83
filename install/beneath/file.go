// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNotPlain means that a name is not a regular file with exactly one link.
var ErrNotPlain = errors.New("not a regular file with one link")

// ErrTooLarge means that a file is larger than the reader accepts.
var ErrTooLarge = errors.New("file too large")

// File is a small regular file, whole.
type File struct {
	Name     string
	Mode     uint32 // permission bits
	UID, GID int
	Content  []byte
}

// Create writes a file that does not exist yet: owner and mode first, then the
// content, then fsync. One that exists is fs.ErrExist; a file that could not be
// finished is removed again.
func (d *Dir) Create(f File) error {
	fd, err := d.open(f.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), d.at(f.Name))
	err = fill(file, f)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, d.Remove(f.Name))
	}
	return nil
}

func fill(file *os.File, f File) error {
	if err := own(int(file.Fd()), file.Name(), f.Mode, f.UID, f.GID); err != nil {
		return err
	}
	if _, err := file.Write(f.Content); err != nil {
		return err
	}
	return file.Sync()
}

// Read returns a regular file with one link and at most limit bytes.
// Others are ErrNotPlain or ErrTooLarge, a missing one is fs.ErrNotExist.
func (d *Dir) Read(name string, limit int64) (File, error) {
	file, stat, err := d.openPlain("read", name)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return File{}, err
	}
	if int64(len(content)) > limit {
		return File{}, fmt.Errorf("%s: %w: more than %d bytes", d.at(name), ErrTooLarge, limit)
	}
	return File{Name: name, Mode: stat.Mode & 0o7777, UID: int(stat.Uid), GID: int(stat.Gid), Content: content}, nil
}

// Own sets owner and mode of a regular file with one link; others are
// ErrNotPlain.
func (d *Dir) Own(name string, mode uint32, uid, gid int) error {
	file, _, err := d.openPlain("chown", name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := own(int(file.Fd()), file.Name(), mode, uid, gid); err != nil {
		return err
	}
	return file.Sync()
}

// openPlain opens a regular file with one link, for the operation op; others are
// ErrNotPlain.
func (d *Dir) openPlain(op, name string) (*os.File, *unix.Stat_t, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, nil, d.fail(op, name, ErrNotPlain)
	}
	if err != nil {
		return nil, nil, err
	}
	file := os.NewFile(uintptr(fd), d.at(name))
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err != nil {
		err = d.fail("stat", name, err)
	} else if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1 {
		err = d.fail(op, name, ErrNotPlain)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, &stat, nil
}

// Kind of an entry.
type Kind int

// What an entry can be.
const (
	Absent Kind = iota
	Plain
	Folder
	Link
	Other
)

// Info describes an entry without following it.
type Info struct {
	Kind     Kind
	Mode     uint32 // permission bits
	UID, GID int
}

// Stat describes name; an absent entry is no error.
func (d *Dir) Stat(name string) (Info, error) {
	if err := d.check("stat", name); err != nil {
		return Info{}, err
	}
	var stat unix.Stat_t
	err := unix.Fstatat(d.FD(), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{Kind: Absent}, nil
	}
	if err != nil {
		return Info{}, d.fail("stat", name, err)
	}
	return info(&stat), nil
}

// Self describes the directory itself.
func (d *Dir) Self() (Info, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(d.FD(), &stat); err != nil {
		return Info{}, &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	return info(&stat), nil
}

func info(stat *unix.Stat_t) Info {
	kinds := map[uint32]Kind{unix.S_IFREG: Plain, unix.S_IFDIR: Folder, unix.S_IFLNK: Link}
	kind, known := kinds[stat.Mode&unix.S_IFMT]
	if !known {
		kind = Other
	}
	return Info{Kind: kind, Mode: stat.Mode & 0o7777, UID: int(stat.Uid), GID: int(stat.Gid)}
}

func sortedNames(entries []fs.DirEntry) []string {
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names
}
