// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/record"
)

// DefaultRunDir is where plain keys lie that are sealed on the disk. It is gone
// after a reboot.
const DefaultRunDir = generation.RunDir

// ErrNotMemory means that plain keys would be written to a disk.
var ErrNotMemory = generation.ErrNotMemory

// ErrNoPlainKey means that a sealed key has not been given out since the boot.
var ErrNoPlainKey = fileset.ErrNoPlainKey

// Opener gives the private key back that was sealed as text, for a leaf.
type Opener = fileset.Opener

// Unseal puts the plain keys of the current set where its services read them, as
// far as they are not there. Each is checked against this set's leaf and its dates
// before it is written. It returns the names of the certificates whose keys were
// opened; an error is joined of all that could not be.
func (i *Installer) Unseal(ctx context.Context, open Opener) (opened []string, err error) {
	lock, err := i.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s, err := generation.Open(i.root(), i.stateDir(), i.set().Name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	number, err := s.Current()
	if err != nil || number == record.None {
		return nil, errors.Join(err, ErrNotInstalled)
	}
	files, err := s.Read(number)
	if err != nil {
		return nil, err
	}
	return s.Unseal(ctx, number, files, open)
}

// sealedMode: the owner of the key may read what it comes back from, which tells
// nothing to whoever is not this TPM.
const sealedMode = 0o400

func sealedFile(m member) beneath.File {
	return beneath.File{Name: m.item.Name + fileset.SealedSuffix, Mode: sealedMode, UID: m.owner.UID, GID: m.owner.GID, Content: m.item.Sealed}
}
