// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// open opens a path as the host sees it: absolute links lead to the host's own
// files, never to the machine's.
func (h *Host) open(name string, flags int, mode fs.FileMode) (*os.File, error) {
	how := &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode.Perm())
	}
	for {
		fd, err := unix.Openat2(int(h.root.Fd()), name, how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: h.Name + ":" + name, Err: err}
		}
		return os.NewFile(uintptr(fd), h.Name+":"+name), nil
	}
}

// ReadFile reads a file of the host.
func (h *Host) ReadFile(name string) ([]byte, error) {
	file, err := h.open(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(file)
}

// Exists says whether there is something at that path, links followed.
func (h *Host) Exists(name string) bool {
	file, err := h.open(name, unix.O_PATH, 0)
	if err == nil {
		err = file.Close()
	}
	return err == nil
}

// Stat describes a file of the host, links followed; Sys is a *syscall.Stat_t.
func (h *Host) Stat(name string) (fs.FileInfo, error) { return h.stat(name, 0) }

// Lstat describes a file of the host, or the link itself.
func (h *Host) Lstat(name string) (fs.FileInfo, error) { return h.stat(name, unix.O_NOFOLLOW) }

func (h *Host) stat(name string, flags int) (fs.FileInfo, error) {
	file, err := h.open(name, unix.O_PATH|flags, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return file.Stat()
}

// ReadDir lists a directory of the host, sorted by name.
func (h *Host) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := h.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return dir.ReadDir(-1)
}

// Readlink reads a link of the host.
func (h *Host) Readlink(name string) (string, error) {
	file, err := h.open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	target := make([]byte, 4096)
	n, err := unix.Readlinkat(int(file.Fd()), "", target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: h.Name + ":" + name, Err: err}
	}
	return string(target[:n]), nil
}

// WriteFile writes a file of the host, owned by root, its directories made
// when missing (0755).
func (h *Host) WriteFile(name string, data []byte, mode fs.FileMode) error {
	return h.WriteFileAs(name, data, mode, 0, 0)
}

// WriteFileAs is WriteFile with an owner.
func (h *Host) WriteFileAs(name string, data []byte, mode fs.FileMode, uid, gid int) error {
	if err := h.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := h.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Chmod(mode), file.Chown(uid, gid), file.Close())
}

// MkdirAll makes a directory of the host and those above it, owned by root.
func (h *Host) MkdirAll(name string, mode fs.FileMode) error {
	if h.Exists(name) {
		return nil
	}
	if err := h.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	parent, err := h.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o700); err != nil {
		return fmt.Errorf("make %s:%s: %w", h.Name, name, err)
	}
	return unix.Fchmodat(int(parent.Fd()), path.Base(name), uint32(mode.Perm()), 0)
}
