// SPDX-License-Identifier: Apache-2.0

package place

import (
	"errors"
	"path"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// ErrNotAdoptable means that the set's folder holds what we would not have put
// there, so it is left alone.
var ErrNotAdoptable = errors.New("cannot be taken over")

// Place is where services read a set.
type Place struct {
	Dir    *beneath.Dir // the directory that it is in
	Folder string       // its own path, absolute on the host
	Target string       // the text of our link
}

func (p Place) name() string { return path.Base(p.Folder) }

// TidyHint says what to do about what does not belong there.
func (p Place) TidyHint() string {
	return "move what does not belong there out of " + p.Folder + ", then run again"
}

// ParkedLink is the name beside the place of the link before it is exchanged for a
// folder, which then has that name.
func (p Place) ParkedLink() string { return "." + p.name() + ".omen" }

// ParkedFolder is the name of the folder where there is no exchange.
func (p Place) ParkedFolder() string { return "." + p.name() + ".omen-old" }

// FoundFolder is where an uninstallation makes the folder that people had, before
// it takes the link's place.
func (p Place) FoundFolder() string { return "." + p.name() + ".omen-found" }

// State is what stands at the set's folder.
type State int

// What can stand there.
const (
	Absent State = iota
	Linked       // our link
	Filled       // a folder that people filled
)

// State says what stands there; what is neither ours nor a folder is an error.
func (p Place) State() (State, error) {
	info, err := p.Dir.Stat(p.name())
	if err != nil {
		return Absent, err
	}
	switch info.Kind {
	case beneath.Absent:
		return Absent, nil
	case beneath.Folder:
		return Filled, nil
	case beneath.Link:
		target, err := p.Dir.ReadLink(p.name())
		if err != nil {
			return Absent, err
		}
		if target == p.Target {
			return Linked, nil
		}
		return Absent, remedy.Errorf("remove the link, after copying what it leads to if that is still needed", "%s is a link to %s: %w", p.Folder, target, ErrNotAdoptable)
	}
	return Absent, remedy.Errorf(p.TidyHint(), "%s is neither folder nor link: %w", p.Folder, ErrNotAdoptable)
}

// Link puts the link where nothing stands. It can be there, and not be durable yet.
func (p Place) Link() (made bool, err error) {
	if err := p.Dir.Symlink(p.Target, p.name()); err != nil {
		return false, err
	}
	return true, p.Dir.Sync()
}
