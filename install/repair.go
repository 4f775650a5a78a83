// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io/fs"
	"syscall"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/record"
)

// Harm is what somebody else did to a file of a generation.
type Harm = generation.Harm

// What can have happened.
const (
	Changed   = generation.Changed
	Missing   = generation.Missing
	Added     = generation.Added
	Reowned   = generation.Reowned
	PlainLost = generation.PlainLost
)

// Damage is one file that is not as Install left it.
type Damage = generation.Damage

// checkUntouched is asked of the set as a whole.
const checkUntouched = "files are as they were installed"

// onDisk reports that it is the disk, not the file, that is in the way.
func onDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) || errors.Is(err, ErrNotMemory)
}

// Damage names the files of the current set that somebody else has changed. It
// changes nothing and takes no lock. Nothing installed is ErrNotInstalled.
func (i *Installer) Damage() ([]Damage, error) {
	s, number, err := i.openCurrent()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	_, damage, err := s.Inspect(number)
	return damage, err
}

// checkUnchanged is Verify's question to the disk.
func (i *Installer) checkUnchanged() []Finding {
	damage, err := i.Damage()
	if err != nil {
		return []Finding{{Check: checkUntouched, Err: err}}
	}
	var findings []Finding
	for _, d := range damage {
		findings = append(findings, Finding{Certificate: d.Certificate, Check: checkUntouched, Err: errors.New(d.String())})
	}
	return findings
}

// openCurrent opens the sets, and says which is current.
func (i *Installer) openCurrent() (generation.Store, int, error) {
	s, err := generation.Open(i.root(), i.stateDir(), i.set().Name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, record.None, errors.Join(ErrNotInstalled, err)
	}
	if err != nil {
		return s, record.None, err
	}
	number, err := s.Current()
	if err == nil && number == record.None {
		err = ErrNotInstalled
	}
	if err != nil {
		s.Close()
	}
	return s, number, err
}

// Repair puts modes and owners of the current set right, which needs nothing but
// the manifest, and returns all damage. What is not mended needs new certificates,
// or an unsealing. Nothing installed is no damage.
func (i *Installer) Repair() (damage []Damage, err error) {
	found, err := i.Damage()
	if errors.Is(err, ErrNotInstalled) || err == nil && len(found) == 0 {
		return nil, nil
	}
	lock, err := i.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s, number, err := i.openCurrent()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	damage, err = s.Repair(number)
	return damage, i.explainDisk(err)
}
