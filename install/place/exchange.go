// SPDX-License-Identifier: Apache-2.0

package place

import (
	"errors"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
)

// TakeOver exchanges folder and link. The folder is removed once it is known to be what
// was copied.
func (p Place) TakeOver(copied []beneath.File) error {
	if err := p.Dir.Symlink(p.Target, p.ParkedLink()); err != nil {
		return err
	}
	err := p.Dir.Exchange(p.ParkedLink(), p.name())
	switch {
	case err == nil:
		err = p.discard(p.ParkedLink(), copied, func() error { return p.Dir.Exchange(p.ParkedLink(), p.name()) })
	case beneath.CannotExchange(err):
		err = p.replace(copied)
	}
	if err != nil {
		return errors.Join(err, p.RemoveIfLink(p.ParkedLink()))
	}
	return p.Dir.Sync()
}

// replace is for file systems without an exchange: two renames. Where even the
// folder cannot be moved (a lower layer of overlayfs) its copied files are
// removed first. For that moment nothing stands at the path; an installation
// that was interrupted there is mended by the next one.
func (p Place) replace(copied []beneath.File) error {
	err := p.Dir.Rename(p.name(), p.ParkedFolder())
	if beneath.CannotExchange(err) {
		if err := p.discard(p.name(), copied, nothing); err != nil {
			return err
		}
		return p.fillPlace()
	}
	if err != nil {
		return err
	}
	back := func() error { return p.Dir.Rename(p.ParkedFolder(), p.name()) }
	if err := p.Dir.Rename(p.ParkedLink(), p.name()); err != nil {
		return errors.Join(err, back())
	}
	return p.discard(p.ParkedFolder(), copied, func() error {
		return errors.Join(p.Dir.Rename(p.name(), p.ParkedLink()), back())
	})
}

func nothing() error { return nil }

// fillPlace puts the link where the folder stood, which is gone: by a new one where
// the parked one cannot be moved.
func (p Place) fillPlace() error {
	err := p.Dir.Rename(p.ParkedLink(), p.name())
	if err == nil {
		return nil
	}
	if again := p.Dir.Symlink(p.Target, p.name()); again != nil {
		return errors.Join(err, again)
	}
	return p.Dir.Remove(p.ParkedLink())
}

// discard removes a folder in which nothing is that was not copied; one that changed
// meanwhile is put back. What was renamed until here is durable before a file goes.
func (p Place) discard(name string, copied []beneath.File, putBack func() error) error {
	if err := p.Dir.Sync(); err != nil {
		return errors.Join(err, putBack())
	}
	same, err := p.Holds(name, copied)
	if err == nil && !same {
		err = remedy.Errorf("find what writes there (a timer of the manual set-up?), stop it, run again",
			"%s changed while it was taken over: %w", p.Folder, ErrNotAdoptable)
	}
	if err != nil {
		return errors.Join(err, putBack())
	}
	return p.Dir.RemoveFlat(name)
}

// Holds reports whether a folder has none but these files with these contents.
func (p Place) Holds(name string, copied []beneath.File) (bool, error) {
	folder, err := p.Dir.Sub(name)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	found, err := generation.ReadPlain(folder)
	if err != nil {
		return false, err
	}
	return fileset.HasAll(copied, found), nil
}

// RemoveIfLink removes what has a name beside the place, where it is a link.
func (p Place) RemoveIfLink(name string) error {
	info, err := p.Dir.Stat(name)
	if err != nil || info.Kind != beneath.Link {
		return err
	}
	return p.Dir.Remove(name)
}

// Mend writes files back that were removed from the folder, which is in its
// place still.
func (p Place) Mend(copied []beneath.File, was *record.Folder) error {
	state, err := p.State()
	if err != nil || state != Filled {
		return err
	}
	folder, err := p.Dir.Sub(p.name())
	if err != nil {
		return err
	}
	defer folder.Close()
	var errs []error
	for _, f := range copied {
		if there, err := folder.Stat(f.Name); err != nil || there.Kind != beneath.Absent {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, folder.Create(was.AsFound(f)))
	}
	return errors.Join(append(errs, folder.Sync())...)
}

// Whole reports that the folder is in its place with everything in it.
func (p Place) Whole(copied []beneath.File) bool {
	folder, err := p.Dir.Sub(p.name())
	if err != nil {
		return false
	}
	defer folder.Close()
	files, err := generation.ReadPlain(folder)
	return err == nil && fileset.HasAll(files, copied)
}
