// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// strict is how every name below a Dir is resolved.
const strict = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// Inside opens a path inside the folder root as if that were the root of all: links are
// followed, and cannot leave it.
//
// A sandbox with RestrictSUIDSGID= has no openat2, since a filter of system calls cannot
// look into what it is given. There the path is opened as usual, if root is the root of
// all: it is the same file.
func Inside(root int, name string, flags int) (int, error) {
	relative := strings.TrimLeft(path.Clean("/"+name), "/")
	if relative == "" {
		relative = "."
	}
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openat2(root, relative, &how)
	if errors.Is(err, unix.ENOSYS) && isRoot(root) {
		return again(func() (int, error) { return unix.Open("/"+relative, flags|unix.O_CLOEXEC, 0) })
	}
	return fd, err
}

// isRoot reports that a folder is the root of this process.
func isRoot(fd int) bool {
	var here, root unix.Stat_t
	return unix.Fstat(fd, &here) == nil && unix.Stat("/", &root) == nil && here.Dev == root.Dev && here.Ino == root.Ino
}

// openName opens a name, which is a single component, in a folder. Without openat2 it is
// as strict: one component leads out by a link alone, and none is followed.
func openName(dir int, name string, flags int, mode uint32) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := openat2(dir, name, &unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode), Resolve: strict})
	if errors.Is(err, unix.ENOSYS) {
		return again(func() (int, error) { return unix.Openat(dir, name, flags, mode) })
	}
	return fd, err
}

func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	return again(func() (int, error) { return unix.Openat2(dir, name, how) })
}

// mostTries bounds how often a call is repeated: the owner of a file can have the kernel
// ask for it for ever, by a lease.
const mostTries = 1000

// again repeats a call while the kernel asks for it (a rename ran beside).
func again(call func() (int, error)) (fd int, err error) {
	for range mostTries {
		fd, err = call()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}
