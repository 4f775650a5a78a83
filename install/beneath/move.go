// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Symlink makes name a link to target; a name that exists is fs.ErrExist.
func (d *Dir) Symlink(target, name string) error {
	if err := d.check("symlink", name); err != nil {
		return err
	}
	if err := unix.Symlinkat(target, d.FD(), name); err != nil {
		return d.fail("symlink", name, err)
	}
	return nil
}

// ReadLink returns the text of the link name.
func (d *Dir) ReadLink(name string) (string, error) {
	if err := d.check("readlink", name); err != nil {
		return "", err
	}
	text := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(d.FD(), name, text)
	if err != nil {
		return "", d.fail("readlink", name, err)
	}
	return string(text[:size]), nil
}

// Rename moves from to to, replacing it in one step.
func (d *Dir) Rename(from, to string) error { return d.rename(from, d, to, 0) }

// RenameInto moves from into the directory other as to, replacing it.
func (d *Dir) RenameInto(from string, other *Dir, to string) error {
	return d.rename(from, other, to, 0)
}

// Exchange swaps two entries in one step. File systems that cannot answer
// EXDEV, EINVAL or ENOSYS; CannotExchange tells.
func (d *Dir) Exchange(one, two string) error { return d.rename(one, d, two, unix.RENAME_EXCHANGE) }

func (d *Dir) rename(from string, other *Dir, to string, flags uint) error {
	if err := errors.Join(d.check("rename", from), other.check("rename", to)); err != nil {
		return err
	}
	if err := unix.Renameat2(d.FD(), from, other.FD(), to, flags); err != nil {
		return d.fail("rename", from, err)
	}
	return nil
}

// CannotExchange reports whether err says that the file system has no exchange
// (or, with EXDEV, that it cannot move this directory at all).
func CannotExchange(err error) bool {
	return errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// Remove unlinks a file or link; an absent one is no error.
func (d *Dir) Remove(name string) error { return d.unlink(name, 0) }

// RemoveEmpty removes an empty directory; an absent one is no error.
func (d *Dir) RemoveEmpty(name string) error { return d.unlink(name, unix.AT_REMOVEDIR) }

// RemoveIfEmpty removes a directory unless something is in it; an absent one is no
// error.
func (d *Dir) RemoveIfEmpty(name string) error {
	err := d.RemoveEmpty(name)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

func (d *Dir) unlink(name string, flags int) error {
	if err := d.check("remove", name); err != nil {
		return err
	}
	if err := unix.Unlinkat(d.FD(), name, flags); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.fail("remove", name, err)
	}
	return nil
}

// RemoveFlat removes the directory name and the files and links in it; one that
// holds a directory is an error.
func (d *Dir) RemoveFlat(name string) error {
	sub, err := d.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return err
	}
	for _, entry := range names {
		if err := sub.Remove(entry); err != nil {
			return err
		}
	}
	return d.RemoveEmpty(name)
}

// IgnoreAbsent is err, unless it says that something is not there.
func IgnoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
