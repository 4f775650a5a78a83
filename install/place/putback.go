// SPDX-License-Identifier: Apache-2.0

package place

import (
	"errors"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/record"
)

// PutBack makes the folder that people had, and has it take the place.
func (p Place) PutBack(state State, was *record.Folder, files []beneath.File) error {
	if err := p.writeFolder(was, files); err != nil {
		return err
	}
	name, link := p.FoundFolder(), p.name()
	if state == Linked {
		err := p.Dir.Exchange(name, link)
		if err == nil {
			return errors.Join(p.Dir.Sync(), p.Dir.Remove(name), p.Dir.Sync())
		}
		if !beneath.CannotExchange(err) {
			return err
		}
		if err := p.Dir.Remove(link); err != nil {
			return err
		}
	}
	return errors.Join(p.Dir.Rename(name, link), p.Dir.Sync())
}

func (p Place) writeFolder(was *record.Folder, files []beneath.File) error {
	dir, err := p.Dir.Make(p.FoundFolder(), was.Mode, was.UID, was.GID)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, f := range files {
		if err := dir.Create(was.AsFound(f)); err != nil {
			return err
		}
	}
	return errors.Join(dir.Sync(), p.Dir.Sync())
}
