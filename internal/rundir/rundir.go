// SPDX-License-Identifier: Apache-2.0

package rundir

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// passMode is for others to pass and not to list, as the agent's own folders are.
const passMode = 0o711

// ErrNotMemory says that a secret would be written to a disk.
var ErrNotMemory = errors.New("not a file system in memory")

// errOthers says that somebody else could put another thing in the place of ours.
var errOthers = errors.New("can be written by others than root")

// Open opens a folder of root's below root, made when it is missing.
func Open(root, folder string) (*beneath.Dir, error) {
	dir, err := beneath.Open(root, folder)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err = create(root, folder)
	}
	if err != nil {
		return nil, err
	}
	if err := check(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// Look says what Open would, and for a secret what WriteSecret would, and makes nothing.
func Look(root, folder string, secret bool) error {
	dir, err := beneath.Open(root, folder)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err = beneath.Open(root, path.Dir(folder))
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := check(dir); err != nil || !secret {
		return err
	}
	return checkMemory(dir)
}

// create makes the folder in one that is root's too.
func create(root, folder string) (*beneath.Dir, error) {
	parent, err := beneath.Open(root, path.Dir(folder))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := check(parent); err != nil {
		return nil, err
	}
	dir, err := parent.Make(path.Base(folder), passMode, os.Geteuid(), os.Getegid())
	if errors.Is(err, fs.ErrExist) { // made beside us
		return parent.Sub(path.Base(folder))
	}
	return dir, err
}

func check(dir *beneath.Dir) error {
	info, err := dir.Self()
	if err != nil {
		return err
	}
	if info.UID != os.Geteuid() || info.Mode&0o022 != 0 {
		return remedy.Errorf("chown root: and chmod go-w "+dir.Path()+", or choose another folder", "%s %w", dir.Path(), errOthers)
	}
	return nil
}

func checkMemory(dir *beneath.Dir) error {
	memory, err := dir.InMemory()
	if err == nil && !memory {
		err = remedy.Errorf("choose a file on a tmpfs, as below /run", "%s is %w", dir.Path(), ErrNotMemory)
	}
	return err
}

// WriteSecret puts a small secret into a folder in memory, whole and in one step, for
// its owner alone. A folder on another file system is ErrNotMemory.
func WriteSecret(root, file string, uid, gid int, content []byte) error {
	dir, err := Open(root, path.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := checkMemory(dir); err != nil {
		return err
	}
	unfinished := "." + path.Base(file) + ".new-"
	if err := sweep(dir, unfinished); err != nil {
		return err
	}
	secret := beneath.File{Name: unfinished + strconv.Itoa(os.Getpid()), Mode: 0o600, UID: uid, GID: gid, Content: content}
	if err := dir.Create(secret); err != nil {
		return err
	}
	if err := dir.Rename(secret.Name, path.Base(file)); err != nil {
		return errors.Join(err, dir.Remove(secret.Name))
	}
	return nil
}

// sweep removes what this process, and those that are no more, did not finish. What
// another one is about to write is its own.
func sweep(dir *beneath.Dir, unfinished string) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, ours := strings.CutPrefix(name, unfinished)
		number, err := strconv.Atoi(pid)
		if !ours || err != nil || number != os.Getpid() && unix.Kill(number, 0) == nil {
			continue
		}
		if err := dir.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// RemoveSecret removes what WriteSecret wrote, which is in memory; what is not there is
// no error, also where nothing may be removed.
func RemoveSecret(root, file string) error {
	dir, err := beneath.Open(root, path.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if info, err := dir.Stat(path.Base(file)); err != nil || info.Kind == beneath.Absent {
		return err
	}
	if err := errors.Join(check(dir), checkMemory(dir)); err != nil {
		return err
	}
	return dir.Remove(path.Base(file))
}
