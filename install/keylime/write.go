// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// ErrNoWayBack means that a main file holds settings of ours and that what stood
// there before them is not known any more.
var ErrNoWayBack = errors.New("backup is missing")

// ground is what stands on the disk for one component.
type ground struct {
	profile Profile
	folder  *Entry // conf.d
	dropIn  *Entry // our file in it
	main    *Entry
	odd     error  // the main file is none that we would write
	saved   *Entry // the record's file
	record  record
	backup  *Entry // the one that the record names
}

// survey reads what stands in ConfigDir, given open as config.
func survey(config *beneath.Dir, profile Profile) (g ground, err error) {
	g.profile = profile
	name := profile.Component
	if g.saved, g.record, err = readRecord(config, name); err != nil {
		return g, err
	}
	if g.main, g.odd = read(config, mainName(name)); g.odd != nil && g.record.Edit != nil {
		return g, g.odd
	}
	if g.record.Edit != nil && g.record.Edit.Backup != "" {
		if g.backup, err = read(config, g.record.Edit.Backup); err != nil {
			return g, err
		}
	}
	conf, err := config.Sub(folderName(name))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return g, err
	}
	defer conf.Close()
	self, err := conf.Self()
	if err != nil {
		return g, err
	}
	g.folder = &Entry{IsFolder: true, Mode: self.Mode, UID: self.UID, GID: self.GID}
	g.dropIn, err = read(conf, DropInFile)
	return g, err
}

// found is the main file without what we did to it, nil where there was none.
// Settings of others that came later stay.
func (g ground) found() (*Entry, error) {
	e := g.record.Edit
	if e == nil || g.main == nil {
		return g.main, nil
	}
	untouched := sum(g.main.Content) == e.Wrote
	switch {
	case e.Backup == "" && untouched:
		return nil, nil
	case e.Backup == "":
		main := *g.main
		main.Content = []byte(g.profile.restored(string(g.main.Content), "", e.Keys))
		return &main, nil
	case g.backup == nil:
		name := mainName(g.profile.Component)
		return nil, remedy.Errorf("set "+fmt.Sprint(e.Keys)+" in "+ConfigDir+"/"+name+" as they should be without us, then remove "+ConfigDir+"/"+recordName(g.profile.Component),
			"%s: %w: %s", name, ErrNoWayBack, e.Backup)
	}
	main := *g.main
	main.Content = g.backup.Content
	if !untouched {
		main.Content = []byte(g.profile.restored(string(g.main.Content), string(g.backup.Content), e.Keys))
	}
	return &main, nil
}

// keptBackup is the backup as long as it says what the main file does not.
func (g ground) keptBackup(main *Entry) *Entry {
	if g.backup.same(main) {
		return nil
	}
	return g.backup
}

// wanted is what shall stand there.
type wanted struct {
	folder, dropIn, main *Entry
	record               record
	backup               *Entry // under the name in record
}

// Prepare says what has to change in ConfigDir, given open as config, and changes
// nothing; Apply does it. Root holds the vendor's files; day names the backup of a
// main file.
func (d DropIn) Prepare(root string, config *beneath.Dir, day time.Time) (Written, error) {
	g, err := survey(config, d.Profile)
	if err != nil {
		return Written{Component: d.Profile.Component}, err
	}
	found, err := g.found()
	if err != nil && (d.Mode != InMain || !errors.Is(err, ErrNoWayBack)) {
		return Written{Component: d.Profile.Component}, err
	}
	w := wanted{main: found, backup: g.keptBackup(found)}
	if d.Mode == InMain {
		err = d.intoMain(&w, g, found, err != nil, root, config, day)
	} else {
		d.intoFolder(&w, g)
	}
	if err != nil {
		return Written{Component: d.Profile.Component}, err
	}
	return g.become(w)
}

func (d DropIn) intoFolder(w *wanted, g ground) {
	w.folder = g.folder
	if g.folder == nil {
		w.folder = &Entry{IsFolder: true, Mode: 0o500, UID: d.UID, GID: d.GID}
	}
	w.record.Folder = g.folder == nil || g.record.Folder
	w.dropIn = &Entry{Mode: 0o440, UID: d.UID, GID: d.GID, Content: d.Content()}
	if g.dropIn.same(w.dropIn) && d.mayRead(g.dropIn.Mode, g.dropIn.UID, g.dropIn.GID, 4) {
		w.dropIn = g.dropIn // whoever gave it another owner may have had a reason
	}
}

// intoMain puts the settings into the main file as it was found. anew: what it was
// is not known, so it is found as it is.
func (d DropIn) intoMain(w *wanted, g ground, found *Entry, anew bool, root string, config *beneath.Dir, day time.Time) error {
	if g.folder != nil && !g.record.Folder {
		w.folder = g.folder
	}
	if g.odd != nil {
		return remedy.Errorf("put a plain file there, or take the line mode = \"edit\" out", "%w: %w", ErrNotEditable, g.odd)
	}
	if anew {
		found, g.record.Edit, g.backup = g.main, nil, nil
	}
	base, err := d.base(found, root)
	if err != nil {
		return err
	}
	text, err := d.Profile.set(ConfigDir+"/"+mainName(d.Profile.Component), string(base.Content), d.Settings)
	if err != nil {
		return err
	}
	main := *base
	main.Content = []byte(text)
	w.main, w.record.Edit, w.backup = &main, &edited{}, g.backup
	if g.record.Edit != nil {
		w.record.Edit.Backup = g.record.Edit.Backup
	} else if found != nil {
		w.backup = found
		if w.record.Edit.Backup, err = freeName(config, mainName(d.Profile.Component), day); err != nil {
			return err
		}
	}
	for _, s := range d.Settings {
		w.record.Edit.Keys = append(w.record.Edit.Keys, s.Key)
	}
	if w.backup.same(found) {
		w.record.Edit.Wrote = sum(main.Content)
	}
	return nil
}

// base is the main file to begin with. Where there is none in ConfigDir, a copy of
// the vendor's takes its place, since Keylime reads one of the two. The agent reads
// both, and a copy would undo the vendor's drop-ins: its own begins empty.
func (d DropIn) base(found *Entry, root string) (*Entry, error) {
	if found != nil {
		return found, nil
	}
	fresh := &Entry{Mode: 0o440, UID: d.UID, GID: d.GID}
	if d.Profile.TOML {
		return fresh, nil
	}
	var err error
	fresh.Content, err = readText(filepath.Join(root, VendorDir, mainName(d.Profile.Component)))
	return fresh, err
}

// maxBackups bounds the backups of one day.
const maxBackups = 100

// freeName is a name for a backup beside the main file that nothing has.
func freeName(config *beneath.Dir, main string, day time.Time) (string, error) {
	name := main + ".backup-" + day.Format("20060102")
	for n := range maxBackups {
		candidate := name
		if n > 0 {
			candidate = fmt.Sprintf("%s.%d", name, n)
		}
		if there, err := config.Stat(candidate); err != nil || there.Kind == beneath.Absent {
			return candidate, err
		}
	}
	return "", remedy.Errorf("remove those that are not needed", "%s: %d backups of one day", filepath.Join(ConfigDir, name), maxBackups)
}

// become lists what has to change, so ordered that at every point the record tells
// the way back.
func (g ground) become(w wanted) (Written, error) {
	component := g.profile.Component
	saved, err := w.record.entry(g.saved)
	record := Place{Name: recordName(component), Before: g.saved, After: saved}
	main := Place{Name: mainName(component), Before: g.main, After: w.main}
	folder := Place{Name: folderName(component), Before: g.folder, After: w.folder}
	dropIn := Place{Folder: folder.Name, Name: DropInFile, Before: g.dropIn, After: w.dropIn}
	backup := Place{Before: g.backup, After: w.backup}
	if g.record.Edit != nil {
		backup.Name = g.record.Edit.Backup
	}
	places := []Place{main, dropIn, folder, record, backup}
	switch {
	case w.record.Edit != nil:
		backup.Name = w.record.Edit.Backup
		places = []Place{backup, record, main, dropIn, folder}
	case w.dropIn != nil:
		places = []Place{folder, dropIn, main, record, backup}
	}
	done := Written{Component: component, Places: slices.DeleteFunc(places, Place.stays)}
	done.Changed = !main.stays() || !dropIn.stays()
	return done, err
}

// stays reports that nothing changes.
func (p Place) stays() bool {
	a, b := p.Before, p.After
	return a.same(b) && (a == nil || a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID)
}

// Leave says what puts a component back as it was found: no drop-in of ours, no
// folder that we made, the main file without our settings, no backup. Apply does
// it. What others changed in the main file meanwhile stays, and its backup too.
func Leave(config *beneath.Dir, profile Profile) (Written, error) {
	g, err := survey(config, profile)
	if err != nil {
		return Written{Component: profile.Component}, err
	}
	w := wanted{}
	if w.main, err = g.found(); err != nil {
		return Written{Component: profile.Component}, err
	}
	w.backup = g.keptBackup(w.main)
	if !g.record.Folder {
		w.folder = g.folder
	}
	return g.become(w)
}
