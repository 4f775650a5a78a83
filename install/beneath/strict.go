// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// OpenPlain opens the directory at an absolute path on which there is no link at
// all: somebody else may own a folder on the way, and must not choose with a link
// where we write.
func OpenPlain(path string) (*Dir, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := openat2(unix.AT_FDCWD, path, &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{file: os.NewFile(uintptr(fd), path), path: path}, nil
}
