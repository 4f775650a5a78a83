// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
)

func folderOf(component string) string { return component + ".conf.d" }

// readDropIn reads what stands under the name of our drop-in, nil for nothing.
func readDropIn(config *beneath.Dir, component string) (*keylime.Entry, error) {
	conf, err := config.Sub(folderOf(component))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer conf.Close()
	f, err := conf.Read(keylime.DropInFile, keypair.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &keylime.Entry{Mode: f.Mode, UID: f.UID, GID: f.GID, Content: f.Content}, nil
}

// components are all that we have told something, or might have.
func (c *Change) components() []string {
	var all []string
	if c.found != nil {
		for _, d := range c.found.DropIns {
			all = append(all, d.Component)
		}
	}
	if c.earlier != nil {
		for _, w := range c.earlier.Written {
			all = append(all, w.Component)
		}
	}
	if len(all) == 0 { // an older version of ours wrote nothing down
		for _, m := range c.plan.members {
			all = append(all, m.profile.Component)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(component string) bool { return component == "" })
}

// leave says what puts a component back as it was found; what then stood under
// the name of our drop-in comes back too.
func (c *Change) leave(component string) (keylime.Written, error) {
	profiles := keylime.Profiles()
	at := slices.IndexFunc(profiles, func(p keylime.Profile) bool { return p.Component == component })
	if at < 0 {
		return keylime.Written{Component: component}, nil
	}
	w, err := keylime.Leave(c.config, profiles[at])
	if err != nil {
		return w, err
	}
	stood, _ := c.found.DropIn(component)
	if stood == nil {
		return w, nil
	}
	now, err := readDropIn(c.config, component)
	if err != nil {
		return w, err
	}
	folder := folderOf(component)
	w.Places = slices.DeleteFunc(w.Places, func(p keylime.Place) bool { return p.Name == folder || p.Folder == folder })
	if now == nil || !bytes.Equal(now.Content, stood.Content) {
		place := keylime.Place{Folder: folder, Name: keylime.DropInFile, Before: now, After: stood}
		room := keylime.Place{Name: folder, After: &keylime.Entry{IsFolder: true, Mode: 0o500, UID: stood.UID, GID: stood.GID}}
		if now != nil {
			room.Before = room.After
		}
		w.Places, w.Changed = append([]keylime.Place{room, place}, w.Places...), true
	}
	return w, nil
}
