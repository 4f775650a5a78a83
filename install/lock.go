// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/remedy"
)

// Lock is the one lock of this host's installations, held until Close.
type Lock struct {
	file *flock.Flock // nil: somebody else holds it, and closes it
}

// Lock takes the lock for several installations at once, see Under. Who else holds it is
// ErrBusy.
func (i *Installer) Lock() (*Lock, error) {
	state, err := generation.MakeState(i.root(), i.stateDir())
	if err == nil {
		err = state.Close()
	}
	if err != nil {
		return nil, i.explainDisk(err)
	}
	lock, err := i.takeLock()
	return lock, i.explainDisk(err)
}

// Under is this installer for who holds the lock already.
func (i *Installer) Under(lock *Lock) *Installer {
	own := *i
	own.held = lock
	return &own
}

// Close gives the lock back.
func (l *Lock) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// lock makes the folder of the set and takes the lock, if nobody has lent it.
func (i *Installer) lock() (*Lock, error) {
	if err := generation.Make(i.root(), i.stateDir(), i.set().Name); err != nil {
		return nil, err
	}
	if i.held != nil {
		return &Lock{}, nil
	}
	return i.takeLock()
}

func (i *Installer) takeLock() (*Lock, error) {
	path := filepath.Join(i.root(), i.stateDir(), lockName)
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW), flock.SetPermissions(0o600))
	taken, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if !taken {
		return nil, errors.Join(remedy.Errorf("wait for it; fuser "+path+" names the process", "%w (lock %s)", ErrBusy, path), lock.Close())
	}
	return &Lock{file: lock}, stillThere(lock, path)
}

// stillThere refuses the lock of a file that an uninstallation has removed.
func stillThere(lock *flock.Flock, path string) error {
	held, err := lock.Stat()
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	named, err := os.Lstat(path)
	if err != nil || !os.SameFile(held, named) {
		return errors.Join(remedy.Errorf("run again", "%w (lock %s was removed)", ErrBusy, path), lock.Close())
	}
	return nil
}
