// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
)

const (
	foundName    = "found"
	foundVersion = 1
)

// ErrMoved means that a set is installed at another folder than is configured.
var ErrMoved = errors.New("the folder of an installed set cannot change")

// found is how the host was before our first installation: what Uninstall puts
// back. It is kept as long as anything of ours is installed.
type found struct {
	Version  int            `json:"version"`
	At       string         `json:"at,omitempty"`        // where the link is
	Folder   *foundFolder   `json:"folder,omitempty"`    // nil: nothing stood where the link is
	MadeRoom bool           `json:"made_room,omitempty"` // nor was there a directory for it
	DropIns  []foundDropIn  `json:"drop_ins"`
	Outputs  []outputLink   `json:"outputs"`
	Services []foundService `json:"services"`
}

// foundFolder is the folder that people had filled. Its files are in a
// generation, whose modes may be stricter than theirs.
type foundFolder struct {
	Generation int         `json:"generation"`
	Mode       uint32      `json:"mode"`
	UID        int         `json:"uid"`
	GID        int         `json:"gid"`
	Files      []foundFile `json:"files"`
}

type foundFile struct {
	Name string `json:"name"`
	Mode uint32 `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
}

// foundDropIn is what stood under the name of our drop-in; nil is nothing.
type foundDropIn struct {
	Component string         `json:"component"`
	File      *keylime.Entry `json:"file,omitempty"`
}

type foundService struct {
	Profile string `json:"profile"`
	Ran     bool   `json:"ran"`
}

func (f *found) check() error {
	if f.Version != foundVersion {
		return fmt.Errorf("record of version %d", f.Version)
	}
	if f.At != "" && (!path.IsAbs(f.At) || path.Clean(f.At) != f.At || f.At == "/") {
		return fmt.Errorf("record of an impossible folder %q", f.At)
	}
	if len(f.DropIns) > maxEntries || len(f.Services) > maxEntries {
		return errors.New("record is too long")
	}
	for _, d := range f.DropIns {
		if !profileName.MatchString(d.Component) || d.File != nil && (d.File.IsFolder || d.File.Mode > 0o7777 || d.File.UID < 0 || d.File.GID < 0) {
			return fmt.Errorf("record of an impossible drop-in of %q", d.Component)
		}
	}
	if slices.ContainsFunc(f.Services, func(s foundService) bool { return !profileName.MatchString(s.Profile) }) {
		return errors.New("record names an impossible service")
	}
	return errors.Join(checkLinks(f.Outputs), f.Folder.check())
}

func (f *foundFolder) check() error {
	if f == nil {
		return nil
	}
	if !isNumber(f.Generation) || f.Generation == none || f.Mode > 0o7777 || f.UID < 0 || f.GID < 0 || len(f.Files) > maxFiles {
		return errors.New("record of an impossible folder")
	}
	for _, file := range f.Files {
		if !plainName(file.Name) || file.Mode > 0o7777 || file.UID < 0 || file.GID < 0 {
			return fmt.Errorf("record of an impossible file %q", file.Name)
		}
	}
	return nil
}

func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}

// asFound gives a file of the folder the mode and owner that it had.
func (f *foundFolder) asFound(file beneath.File) beneath.File {
	if at := slices.IndexFunc(f.Files, func(w foundFile) bool { return w.Name == file.Name }); at >= 0 {
		file.Mode, file.UID, file.GID = f.Files[at].Mode, f.Files[at].UID, f.Files[at].GID
	}
	return file
}

// byHand is the number of the generation that people had filled, or none.
func (f *found) byHand() int {
	if f == nil || f.Folder == nil {
		return none
	}
	return f.Folder.Generation
}

// dropIn is what stood under the name of our drop-in; known: it was written down.
func (f *found) dropIn(component string) (file *keylime.Entry, known bool) {
	if f == nil {
		return nil, false
	}
	at := slices.IndexFunc(f.DropIns, func(d foundDropIn) bool { return d.Component == component })
	if at < 0 {
		return nil, false
	}
	return f.DropIns[at].File, true
}

// readFound returns the record, nil where nothing of ours was ever installed. What
// an older version of ours had installed has none: generation 0 is what people had.
func (c *Change) readFound() (*found, error) {
	f := &found{}
	if there, _, err := recall(c.store.dir, foundName, f, c.installer.log()); there || err != nil {
		return f, err
	}
	if c.was == none {
		return nil, nil
	}
	f = &found{Version: foundVersion}
	files, err := c.store.read(0)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	f.Folder = describeFolder(0, beneath.Info{Mode: 0o755}, files)
	return f, err
}

// moved refuses another folder than the link is at: what stood there would be put
// back in the wrong place, and a link would stay behind that leads nowhere.
func (f *found) moved(folder string) error {
	if f == nil || f.At == "" || f.At == folder {
		return nil
	}
	return remedy.Errorf("go back to folder = \""+f.At+"\", then omen-agent uninstall; after that change it", "this set is installed at %s, not at %s: %w", f.At, folder, ErrMoved)
}

func describeFolder(number int, self beneath.Info, files []beneath.File) *foundFolder {
	folder := &foundFolder{Generation: number, Mode: self.Mode, UID: self.UID, GID: self.GID}
	for _, f := range files {
		folder.Files = append(folder.Files, foundFile{Name: f.Name, Mode: f.Mode, UID: f.UID, GID: f.GID})
	}
	return folder
}

// ours reports that a generation is one that Install wrote.
func (c *Change) ours(number int) bool {
	return number > 0 && number != c.found.byHand()
}

// recordFound completes the record before anything is switched: a component, an
// output or a service that we have not met before is written down as it is now.
func (c *Change) recordFound(ctx context.Context, folder *foundFolder) error {
	f := &found{Version: foundVersion, MadeRoom: c.madeRoom}
	if c.found != nil {
		*f = *c.found
		f.DropIns, f.Services = slices.Clone(f.DropIns), slices.Clone(f.Services)
	}
	f.At = c.set().Folder
	if folder != nil {
		f.Folder = folder
	}
	if err := c.recordDropIns(f); err != nil {
		return err
	}
	for _, o := range c.installer.outputLinks(c.plan) {
		f.Outputs = union(f.Outputs, []outputLink{{o.path, o.target}})
	}
	for _, s := range c.plan.services {
		if !slices.ContainsFunc(f.Services, func(known foundService) bool { return known.Profile == s.profile.Name }) {
			f.Services = append(f.Services, foundService{Profile: s.profile.Name, Ran: s.controller.Alive(ctx) == nil})
		}
	}
	c.found = f
	return writeRecord(c.store.dir, foundName, f)
}

// recordDropIns takes what stands under the name of our drop-ins into the record.
// As long as a set of ours is installed, what is there is ours, or was met before.
func (c *Change) recordDropIns(f *found) error {
	for _, drop := range c.plan.dropIns {
		component := drop.Profile.Component
		_, known := f.dropIn(component)
		if known && c.ours(c.previous) {
			continue
		}
		file, err := c.dropInOfProven(component)
		if err != nil {
			return err
		}
		if file != nil && keylime.IsOurs(file.Content) {
			file = nil // an installation of ours is not known any more
		}
		f.DropIns = slices.DeleteFunc(f.DropIns, func(d foundDropIn) bool { return d.Component == component })
		f.DropIns = append(f.DropIns, foundDropIn{Component: component, File: file})
	}
	return nil
}

// dropInOfProven is the drop-in as it stood with the proven set.
func (c *Change) dropInOfProven(component string) (*keylime.Entry, error) {
	if c.earlier != nil {
		for _, w := range c.earlier.Written {
			for _, p := range w.Places {
				if w.Component == component && p.Folder != "" && p.Name == keylime.DropInFile {
					return p.Before, nil
				}
			}
		}
	}
	return readDropIn(c.config, component)
}

// restoreFound makes the record what it was before this change.
func (c *Change) restoreFound() error {
	c.found = c.before
	if c.before == nil {
		return forget(c.store.dir, foundName)
	}
	return writeRecord(c.store.dir, foundName, c.before)
}
