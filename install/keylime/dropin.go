// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"funlab.casa/omen/install/beneath"
)

// DropInFile is the name of our file in every conf.d.
const DropInFile = "50-omen.conf"

// waiting is where a drop-in is written before it is renamed into conf.d; beside
// conf.d, on the same file system, where Keylime does not look.
const waiting = ".omen-dropin.new"

// DropIn is the file that points one component at the installed certificates.
type DropIn struct {
	Profile  Profile // of the component's first certificate here
	Settings []Setting
	UID, GID int // who must be able to read it
}

// Use is a certificate name in the role of a profile.
type Use struct {
	Profile     Profile
	Certificate string
	UID, GID    int
}

// DropIns returns one drop-in for each component that has a certificate here,
// with the settings of the profiles that are here and of no other.
func DropIns(uses []Use) []DropIn {
	var drops []DropIn
	for _, profile := range Profiles() {
		for _, use := range uses {
			if use.Profile.Name != profile.Name {
				continue
			}
			if len(drops) == 0 || drops[len(drops)-1].Profile.Component != profile.Component {
				drops = append(drops, DropIn{Profile: profile, UID: use.UID, GID: use.GID})
			}
			last := &drops[len(drops)-1]
			last.Settings = append(last.Settings, named(profile.Settings, use.Certificate)...)
		}
	}
	return drops
}

func named(settings []Setting, certificate string) []Setting {
	result := make([]Setting, 0, len(settings))
	for _, setting := range settings {
		setting.Value = strings.ReplaceAll(setting.Value, "%s", certificate)
		result = append(result, setting)
	}
	return result
}

// Content is the file's text in the syntax of the component.
func (d DropIn) Content() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Written by omen-agent at every installation; changes here are lost.\n[%s]\n", d.Profile.Component)
	for _, setting := range d.Settings {
		value := setting.Value
		if d.Profile.TOML && value != "true" {
			value = `"` + value + `"`
		}
		fmt.Fprintf(&text, "%s = %s\n", setting.Key, value)
	}
	return text.Bytes()
}

// Written is a drop-in on disk, with what is needed to undo it.
type Written struct {
	Changed   bool // the bytes differ from what stood there
	component string
	before    *beneath.File // nil: there was none
	madeDir   bool
}

// Component names whose configuration this is.
func (w Written) Component() string { return w.component }

// Write puts the drop-in into ConfigDir, given open as config.
func (d DropIn) Write(config *beneath.Dir) (Written, error) {
	done := Written{component: d.Profile.Component}
	conf, made, err := d.confDir(config)
	if err != nil {
		return done, err
	}
	defer conf.Close()
	done.madeDir = made
	old, err := conf.Read(DropInFile, maxConfig)
	switch {
	case err == nil:
		done.before = &old
		if bytes.Equal(old.Content, d.Content()) {
			return done, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return done, err
	}
	done.Changed = true
	return done, place(config, conf, beneath.File{Mode: 0o440, UID: d.UID, GID: d.GID, Content: d.Content()})
}

// confDir opens conf.d, made when missing so that the component can read it.
func (d DropIn) confDir(config *beneath.Dir) (*beneath.Dir, bool, error) {
	name := d.Profile.Component + ".conf.d"
	conf, err := config.Sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return conf, false, err
	}
	conf, err = config.Make(name, 0o500, d.UID, d.GID)
	return conf, err == nil, err
}

// place writes f beside conf.d and renames it in.
func place(config, conf *beneath.Dir, f beneath.File) error {
	f.Name = waiting
	if err := config.Remove(waiting); err != nil {
		return err
	}
	if err := config.Create(f); err != nil {
		return err
	}
	if err := config.RenameInto(waiting, conf, DropInFile); err != nil {
		return errors.Join(err, config.Remove(waiting))
	}
	return errors.Join(conf.Sync(), config.Sync())
}

// Undo puts back what stood there before, byte for byte, or nothing.
func (w Written) Undo(config *beneath.Dir) error {
	if !w.Changed && !w.madeDir {
		return nil
	}
	name := w.component + ".conf.d"
	conf, err := config.Sub(name)
	if err != nil {
		return err
	}
	defer conf.Close()
	if w.before != nil {
		return place(config, conf, *w.before)
	}
	if err := errors.Join(conf.Remove(DropInFile), conf.Sync()); err != nil || !w.madeDir {
		return err
	}
	return config.RemoveEmpty(name)
}
