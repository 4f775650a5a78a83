// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// Make makes the state directory and the folder of generations.
func Make(root, stateDir, set string) error {
	state, err := MakeState(root, stateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	sets, err := ownFolder(state, set)
	if err != nil {
		return err
	}
	return sets.Close()
}

// MakeState opens the state directory, made when missing.
func MakeState(root, stateDir string) (*beneath.Dir, error) {
	parent, err := beneath.Open(root, filepath.Dir(stateDir))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return ownFolder(parent, filepath.Base(stateDir))
}

// ownFolder opens a folder that only we write and everybody may pass, made when
// missing.
func ownFolder(parent *beneath.Dir, name string) (*beneath.Dir, error) {
	dir, err := parent.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, err = parent.Make(name, wayMode, os.Geteuid(), os.Getegid()); err == nil {
			err = parent.Sync()
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := dir.Self()
	switch {
	case err != nil:
	case info.UID != os.Geteuid():
		err = remedy.Errorf("chown root "+dir.Path(), "%s belongs to user %d", dir.Path(), info.UID)
	case info.Mode != wayMode:
		err = dir.Chown(wayMode, info.UID, info.GID)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}
