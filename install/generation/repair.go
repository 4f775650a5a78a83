// SPDX-License-Identifier: Apache-2.0

package generation

import "funlab.casa/omen/install/beneath"

// Repair puts modes and owners of a generation right.
func (s Store) Repair(number int) ([]Damage, error) {
	m, damage, err := s.Inspect(number)
	if err != nil || m == nil {
		return damage, err
	}
	dir, err := s.Dir.Sub(NameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for at := range damage {
		if damage[at].Harm != Reowned {
			continue
		}
		e := m.Entry(damage[at].File)
		if err := s.setRights(dir, number, e); err != nil {
			return damage, err
		}
		damage[at].Mended = true
	}
	return damage, nil
}

func (s Store) setRights(dir *beneath.Dir, number int, e *Entry) error {
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
