// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
)

// The record of what was found, beside the generations.
const (
	FoundName    = "found"
	FoundVersion = 1
)

// ErrMoved means that a set is installed at another folder than is configured.
var ErrMoved = errors.New("the folder of an installed set cannot change")

// Found is how the host was before our first installation: what Uninstall puts
// back. It is kept as long as anything of ours is installed.
type Found struct {
	Version  int       `json:"version"`
	At       string    `json:"at,omitempty"`        // where the link is
	Folder   *Folder   `json:"folder,omitempty"`    // nil: nothing stood where the link is
	MadeRoom bool      `json:"made_room,omitempty"` // nor was there a directory for it
	DropIns  []DropIn  `json:"drop_ins"`
	Outputs  []Link    `json:"outputs"`
	Services []Service `json:"services"`
}

// Folder is the folder that people had filled. Its files are in a
// generation, whose modes may be stricter than theirs.
type Folder struct {
	Generation int          `json:"generation"`
	Mode       uint32       `json:"mode"`
	UID        int          `json:"uid"`
	GID        int          `json:"gid"`
	Files      []FolderFile `json:"files"`
}

// FolderFile is a file of that folder, as it was.
type FolderFile struct {
	Name string `json:"name"`
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// DropIn is what stood under the name of our drop-in; nil is nothing.
type DropIn struct {
	Component string         `json:"component"`
	File      *keylime.Entry `json:"file,omitempty"`
}

// Service is one that was met, and whether it ran then.
type Service struct {
	Profile string `json:"profile"`
	Ran     bool   `json:"ran"`
}

// Check refuses what would lead anywhere but to what we found.
func (f *Found) Check() error {
	if f.Version != FoundVersion {
		return fmt.Errorf("record of version %d", f.Version)
	}
	if f.At != "" && (!path.IsAbs(f.At) || path.Clean(f.At) != f.At || f.At == "/") {
		return fmt.Errorf("record of an impossible folder %q", f.At)
	}
	if len(f.DropIns) > MaxEntries || len(f.Services) > MaxEntries {
		return errors.New("record is too long")
	}
	for _, d := range f.DropIns {
		if !IsName(d.Component) || d.File != nil && (d.File.IsFolder || d.File.Mode > 0o7777 || d.File.UID < 0 || d.File.GID < 0) {
			return fmt.Errorf("record of an impossible drop-in of %q", d.Component)
		}
	}
	if slices.ContainsFunc(f.Services, func(s Service) bool { return !IsName(s.Profile) }) {
		return errors.New("record names an impossible service")
	}
	return errors.Join(checkLinks(f.Outputs), f.Folder.check())
}

func (f *Folder) check() error {
	if f == nil {
		return nil
	}
	if !isNumber(f.Generation) || f.Generation == None || f.Mode > 0o7777 || f.UID < 0 || f.GID < 0 || len(f.Files) > MaxFiles {
		return errors.New("record of an impossible folder")
	}
	for _, file := range f.Files {
		if !IsFileName(file.Name) || file.Mode > 0o7777 || file.UID < 0 || file.GID < 0 {
			return fmt.Errorf("record of an impossible file %q", file.Name)
		}
	}
	return nil
}

// AsFound gives a file of the folder the mode and owner that it had.
func (f *Folder) AsFound(file beneath.File) beneath.File {
	if at := slices.IndexFunc(f.Files, func(w FolderFile) bool { return w.Name == file.Name }); at >= 0 {
		file.Mode, file.UID, file.GID = f.Files[at].Mode, f.Files[at].UID, f.Files[at].GID
	}
	return file
}

// ByHand is the number of the generation that people had filled, or none.
func (f *Found) ByHand() int {
	if f == nil || f.Folder == nil {
		return None
	}
	return f.Folder.Generation
}

// DropIn is what stood under the name of our drop-in; known: it was written down.
func (f *Found) DropIn(component string) (file *keylime.Entry, known bool) {
	if f == nil {
		return nil, false
	}
	at := slices.IndexFunc(f.DropIns, func(d DropIn) bool { return d.Component == component })
	if at < 0 {
		return nil, false
	}
	return f.DropIns[at].File, true
}

// Moved refuses another folder than the link is at: what stood there would be put
// back in the wrong place, and a link would stay behind that leads nowhere.
func (f *Found) Moved(folder string) error {
	if f == nil || f.At == "" || f.At == folder {
		return nil
	}
	return remedy.Errorf("go back to folder = \""+f.At+"\", then omen-agent uninstall; after that change it", "this set is installed at %s, not at %s: %w", f.At, folder, ErrMoved)
}

// Describe is the record of a folder whose files are in a generation.
func Describe(number int, self beneath.Info, files []beneath.File) *Folder {
	folder := &Folder{Generation: number, Mode: self.Mode, UID: self.UID, GID: self.GID}
	for _, f := range files {
		folder.Files = append(folder.Files, FolderFile{Name: f.Name, Mode: f.Mode, UID: f.UID, GID: f.GID})
	}
	return folder
}
