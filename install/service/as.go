// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/beneath"
)

// ReadAs reads a small regular file below root as an account would: it is opened
// by a thread that has this user, group and groups for files, and no capability to
// pass over modes (setfsuid(2)). Links are followed inside root. Whoever is not root
// reads as itself.
func ReadAs(root string, who account.Account, name string, limit int64) ([]byte, error) {
	var content []byte
	err := openAs(root, who, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, func(fd int) (err error) {
		content, err = readRegular(fd, limit)
		return err
	})
	return content, explainAs("read", name, who, err)
}

// checkExecutable returns an error unless an account may execute a file.
func checkExecutable(root string, who account.Account, name string) error {
	err := openAs(root, who, name, unix.O_PATH, func(fd int) error {
		return unix.Faccessat(fd, "", unix.X_OK, unix.AT_EACCESS|unix.AT_EMPTY_PATH)
	})
	return explainAs("execute", name, who, err)
}

func explainAs(verb, name string, who account.Account, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s as user %s: %w", verb, name, who.Name, err)
}

// as runs do as an account.
func as(who account.Account, do func() error) error {
	if os.Geteuid() != 0 || who.UID == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and with it what it was.
		runtime.LockOSThread()
		if err := become(who); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// become makes the calling thread, and no other, this account for files.
func become(who account.Account) error {
	if err := unix.Setgroups(who.Groups); err != nil {
		return fmt.Errorf("take the groups of %s: %w", who.Name, err)
	}
	// These two report what was before, and fail in silence.
	_, errGroup := unix.SetfsgidRetGid(who.GID)
	_, errUser := unix.SetfsuidRetUid(who.UID)
	gid, errGID := unix.SetfsgidRetGid(-1)
	uid, errUID := unix.SetfsuidRetUid(-1)
	if err := errors.Join(errGroup, errUser, errGID, errUID); err != nil {
		return err
	}
	if uid != who.UID || gid != who.GID {
		return fmt.Errorf("become user %s for files: %w", who.Name, unix.EPERM)
	}
	return nil
}

// openAs opens a path below root as an account, which the way to root itself is no
// matter of, and hands the descriptor on.
func openAs(root string, who account.Account, name string, flags int, use func(fd int) error) error {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(base)
	return as(who, func() error { return inside(base, name, flags, use) })
}

func inside(base int, name string, flags int, use func(fd int) error) error {
	fd, err := beneath.Inside(base, name, flags)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fd)
}

func readRegular(fd int, limit int64) ([]byte, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fs.ErrInvalid
	}
	again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(again), "")
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return content, err
}
