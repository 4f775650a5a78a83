// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io/fs"
	"syscall"

	"funlab.casa/omen/install/beneath"
)

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
	defer s.close()
	_, damage, err := s.inspect(number)
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
func (i *Installer) openCurrent() (store, int, error) {
	s, err := openStore(i.root(), i.stateDir(), i.set())
	if errors.Is(err, fs.ErrNotExist) {
		return s, none, errors.Join(ErrNotInstalled, err)
	}
	if err != nil {
		return s, none, err
	}
	number, err := s.current()
	if err == nil && number == none {
		err = ErrNotInstalled
	}
	if err != nil {
		s.close()
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
	defer s.close()
	damage, err = s.repair(number)
	return damage, i.explainDisk(err)
}

// repair puts modes and owners of a generation right.
func (s store) repair(number int) ([]Damage, error) {
	m, damage, err := s.inspect(number)
	if err != nil || m == nil {
		return damage, err
	}
	dir, err := s.dir.Sub(nameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for at := range damage {
		if damage[at].Harm != Reowned {
			continue
		}
		e := m.entry(damage[at].File)
		if err := s.setRights(dir, number, e); err != nil {
			return damage, err
		}
		damage[at].Mended = true
	}
	return damage, nil
}

func (s store) setRights(dir *beneath.Dir, number int, e *entry) error {
	if !e.Sealed {
		return dir.Own(e.Name, e.Mode, e.UID, e.GID)
	}
	run, err := s.openRun(number)
	if err != nil {
		return err
	}
	defer run.Close()
	return run.Own(e.Name, e.Mode, e.UID, e.GID)
}
