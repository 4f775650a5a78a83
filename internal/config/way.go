// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errUntrusted says that somebody else than root could have written the file.
var errUntrusted = errors.New("can be written by others than root")

// maxLinks bounds the links on one way, as the kernel does.
const maxLinks = 40

// A way is a path that is followed one name at a time.
type way struct {
	at    string   // where it has come to, without links
	names []string // what is left of it
	links int
}

// trustedWay follows a path as the kernel does and returns it without links. Nobody
// but root can make it mean another file: each folder in which a name of it is looked
// up is root's, also those that links stand in. To judge only where links lead would
// let who sets them choose among all that is root's.
func trustedWay(path string) (string, error) {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = here + "/" + path
	}
	w := way{at: "/", names: strings.Split(path, "/")}
	for len(w.names) > 0 {
		if err := w.step(); err != nil {
			return "", err
		}
	}
	return w.at, nil
}

// step follows the next name.
func (w *way) step() error {
	folder, err := trusted(w.at)
	if err != nil {
		return err
	}
	next := filepath.Join(w.at, w.names[0])
	w.names = w.names[1:]
	info, err := os.Lstat(next)
	switch {
	case err != nil:
		return err
	case info.Mode()&os.ModeSymlink == 0:
		w.at = next
		return nil
	case folder.Mode()&os.ModeSticky != 0 && !rootOwns(info):
		return fmt.Errorf("%s %w", next, errUntrusted)
	}
	return w.follow(next)
}

func (w *way) follow(link string) error {
	if w.links++; w.links > maxLinks {
		return &fs.PathError{Op: "follow", Path: link, Err: unix.ELOOP}
	}
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if filepath.IsAbs(target) {
		w.at = "/"
	}
	w.names = slices.Concat(strings.Split(target, "/"), w.names)
	return nil
}

// trusted returns a folder in which nobody but root can replace what root owns.
func trusted(dir string) (os.FileInfo, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	// A sticky folder such as /tmp lets nobody but its owner replace what root
	// owns in it.
	if info.Mode()&os.ModeSticky != 0 && rootOwns(info) {
		return info, nil
	}
	return info, ownedByRoot(dir, info)
}

func ownedByRoot(path string, info os.FileInfo) error {
	if !rootOwns(info) || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s %w", path, errUntrusted)
	}
	return nil
}

// rootOwns: an agent started by a person to look (config check) trusts that
// person too.
func rootOwns(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}

// othersChoose returns errUntrusted where somebody else than root can say which file
// or folder a path means, or could once it is made. What is not there is no fault
// here: as far as the way goes it is root's.
func othersChoose(path string, judge func(real string) error) error {
	real, err := trustedWay(path)
	if err == nil {
		err = judge(real)
	}
	if errors.Is(err, errUntrusted) {
		return err
	}
	return nil
}

// untrustedFolder returns why a folder is none for root to replace names in.
func untrustedFolder(path string) error {
	return othersChoose(path, func(real string) error {
		_, err := trusted(real)
		return err
	})
}

// untrustedProgram returns why a program is none for root to run.
func untrustedProgram(path string) error {
	return othersChoose(path, func(real string) error {
		info, err := os.Lstat(real)
		if err != nil {
			return err
		}
		return ownedByRoot(real, info)
	})
}

// checkPrograms refuses to run as root what somebody else may write. What an
// interpreter or a wrapper is given as arguments nobody sees.
func (s Service) checkPrograms(at atFunc) *fault {
	const hint = "chown root: and chmod go-w what the message names"
	if len(s.Reload) > 0 && filepath.IsAbs(s.Reload[0]) {
		if err := untrustedProgram(s.Reload[0]); err != nil {
			return at("reload", hint+": root runs it at each renewal", "reload = %q: %w", s.Reload[0], err)
		}
	}
	if len(s.Start) > 0 && filepath.IsAbs(s.Start[0]) && runsAsRoot(s.User) {
		if err := untrustedProgram(s.Start[0]); err != nil {
			return at("start", hint+`; or name whom it runs as: user = "…"`, "start = %q: %w", s.Start[0], err)
		}
	}
	return nil
}

// runsAsRoot reports that a command of this user may be started as root: without
// one it is.
func runsAsRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	number, err := strconv.Atoi(name)
	return name == "" || name == "root" || err == nil && number == 0
}
