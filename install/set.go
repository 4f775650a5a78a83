// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io/fs"
	"path"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
)

// A Set is certificates that change together: one folder of generations, and one
// link through which their services read them.
type Set struct {
	Name   string // the folder of generations below the state directory
	Folder string // the link, absolute on the host
}

// KeylimeSet holds every certificate of Keylime on a host.
var KeylimeSet = Set{Name: keylime.SetName, Folder: keylime.CertsDir}

// parent is the directory that the link stands in, link its name there.
func (s Set) parent() string { return path.Dir(s.Folder) }
func (s Set) link() string   { return path.Base(s.Folder) }

// Sets are those that something is installed of on this host, also of earlier
// configurations, in the order of their names.
func (i *Installer) Sets() ([]Set, error) {
	state, err := beneath.Open(i.root(), i.stateDir())
	if err != nil {
		return nil, beneath.IgnoreAbsent(err)
	}
	defer state.Close()
	names, err := state.Names()
	if err != nil {
		return nil, err
	}
	var sets []Set
	for _, name := range names {
		found := &record.Found{}
		switch err := readFoundOf(state, name, found); {
		case err == nil && found.At != "":
			sets = append(sets, Set{Name: name, Folder: found.At})
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return sets, nil
}

// readFoundOf reads the record of one folder of generations. What is no folder has
// none.
func readFoundOf(state *beneath.Dir, name string, f *record.Found) error {
	info, err := state.Stat(name)
	if err == nil && info.Kind != beneath.Folder {
		err = fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	set, err := state.Sub(name)
	if err != nil {
		return err
	}
	defer set.Close()
	return record.Read(set, record.FoundName, f)
}
