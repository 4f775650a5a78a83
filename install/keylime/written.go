// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"

	"funlab.casa/omen/install/beneath"
)

// waiting is where a file is written before it is renamed into its place; beside
// conf.d, on the same file system, where Keylime does not look.
const waiting = ".omen-dropin.new"

// Written is what changes on the disk for one component, and what stood there
// before. It can be kept as JSON, before Apply and after, and holds whatever the
// files hold: passwords too.
type Written struct {
	Component string  `json:"component"` // names whose configuration this is
	Changed   bool    `json:"changed"`   // what the component reads is not what it was
	Places    []Place `json:"places"`    // in the order in which they change
}

// Place is one entry in ConfigDir or in a folder there; nil is none.
type Place struct {
	Folder string `json:"folder,omitempty"`
	Name   string `json:"name"`
	Before *Entry `json:"before,omitempty"`
	After  *Entry `json:"after,omitempty"`
}

// Entry is a file or a folder.
type Entry struct {
	IsFolder bool   `json:"is_folder,omitempty"`
	Mode     uint32 `json:"mode"` // permission bits
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	Content  []byte `json:"content,omitempty"`
}

// Apply makes the change; config is ConfigDir. It may be repeated.
func (w Written) Apply(config *beneath.Dir) error {
	for _, p := range w.Places {
		if err := p.put(config, p.After); err != nil {
			return err
		}
	}
	return nil
}

// Undo puts back what stood there before, byte for byte, or nothing. It may be
// repeated, and Apply need not have come to its end.
func (w Written) Undo(config *beneath.Dir) error {
	var errs []error
	for at := len(w.Places) - 1; at >= 0; at-- {
		errs = append(errs, w.Places[at].put(config, w.Places[at].Before))
	}
	return errors.Join(errs...)
}

func (p Place) isFolder() bool {
	return p.Before != nil && p.Before.IsFolder || p.After != nil && p.After.IsFolder
}

// put makes e stand in the place.
func (p Place) put(config *beneath.Dir, e *Entry) error {
	dir := config
	if p.Folder != "" {
		folder, err := config.Sub(p.Folder)
		if errors.Is(err, fs.ErrNotExist) && e == nil {
			return nil
		}
		if err != nil {
			return err
		}
		defer folder.Close()
		dir = folder
	}
	switch {
	case p.isFolder() && e != nil:
		return makeFolder(dir, p.Name, e)
	case p.isFolder():
		return removeFolder(dir, p.Name)
	case e == nil:
		return errors.Join(dir.Remove(p.Name), dir.Sync())
	}
	if now, err := read(dir, p.Name); err == nil && now.same(e) && now.Mode == e.Mode && now.UID == e.UID && now.GID == e.GID {
		return nil
	}
	return place(config, dir, e.file(p.Name))
}

func makeFolder(dir *beneath.Dir, name string, e *Entry) error {
	made, err := dir.Make(name, e.Mode, e.UID, e.GID)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(made.Close(), dir.Sync())
}

// removeFolder leaves a folder that somebody else uses by now.
func removeFolder(dir *beneath.Dir, name string) error {
	if err := dir.RemoveEmpty(name); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return dir.Sync()
}

// place writes f beside conf.d and renames it in.
func place(config, dir *beneath.Dir, f beneath.File) error {
	name := f.Name
	f.Name = waiting
	if err := config.Remove(waiting); err != nil {
		return err
	}
	if err := config.Create(f); err != nil {
		return err
	}
	if err := config.RenameInto(waiting, dir, name); err != nil {
		return errors.Join(err, config.Remove(waiting))
	}
	return errors.Join(dir.Sync(), config.Sync())
}

func (e *Entry) file(name string) beneath.File {
	return beneath.File{Name: name, Mode: e.Mode, UID: e.UID, GID: e.GID, Content: e.Content}
}

// same reports that two entries read the same.
func (e *Entry) same(other *Entry) bool {
	if e == nil || other == nil {
		return e == other
	}
	return e.IsFolder == other.IsFolder && (e.IsFolder || bytes.Equal(e.Content, other.Content))
}

// read returns what stands at a name, nil for nothing.
func read(dir *beneath.Dir, name string) (*Entry, error) {
	f, err := dir.Read(name, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Entry{Mode: f.Mode & 0o777, UID: f.UID, GID: f.GID, Content: f.Content}, nil
}
