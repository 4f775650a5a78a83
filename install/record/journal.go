// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/keylime"
)

// The journal, beside the generations.
const (
	JournalName    = "journal"
	JournalVersion = 1
)

// Journal is written before an installation switches anything, and removed when
// the new set is proven or everything is as before. So where it is found, its
// installation ended in the middle: whatever is current but From has not been
// proven, and the services it names may have something else in memory.
type Journal struct {
	Version  int               `json:"version"`
	From     int               `json:"from"`    // the proven set, -1 for none
	To       int               `json:"to"`      // the set to be proven
	Adopted  int               `json:"adopted"` // the copy of the folder that the link replaces, -1 for none
	LinkMade bool              `json:"link_made"`
	Written  []keylime.Written `json:"written"`  // the way back to the configuration that goes with From
	Outputs  []Link            `json:"outputs"`  // links made
	Services []string          `json:"services"` // by profile
}

// Link is a link at a configured path, to a file of the current set.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// Check refuses what no installation of ours can have begun.
func (j *Journal) Check() error {
	switch {
	case j.Version != JournalVersion:
		return fmt.Errorf("journal of version %d", j.Version)
	case !isNumber(j.From) || !isNumber(j.To) || j.To == None || !isNumber(j.Adopted):
		return errors.New("journal names an impossible generation")
	case len(j.Written) > MaxEntries || len(j.Services) > MaxEntries:
		return errors.New("journal is too long")
	}
	if at := slices.IndexFunc(j.Services, func(s string) bool { return !IsName(s) }); at >= 0 {
		return fmt.Errorf("journal names the service %q", j.Services[at])
	}
	for _, w := range j.Written {
		if err := checkWritten(w); err != nil {
			return err
		}
	}
	return checkLinks(j.Outputs)
}

// checkWritten refuses what would lead out of the configuration's directory, or
// give files rights that none of ours has.
func checkWritten(w keylime.Written) error {
	if !IsName(w.Component) || len(w.Places) > MaxEntries {
		return fmt.Errorf("record of an impossible component %q", w.Component)
	}
	for _, p := range w.Places {
		if !IsFileName(p.Name) || p.Folder != "" && !IsFileName(p.Folder) {
			return fmt.Errorf("record of an impossible file %q", p.Name)
		}
		for _, e := range []*keylime.Entry{p.Before, p.After} {
			if e != nil && (e.Mode > 0o7777 || e.UID < 0 || e.GID < 0) {
				return fmt.Errorf("record of %q with an impossible mode or owner", p.Name)
			}
		}
	}
	return nil
}

func checkLinks(links []Link) error {
	if len(links) > MaxEntries {
		return errors.New("record has too many links")
	}
	for _, l := range links {
		if !path.IsAbs(l.Path) || path.Clean(l.Path) != l.Path || len(l.Path) > maxPath || len(l.Target) > maxPath || strings.Contains(l.Path+l.Target, "\x00") {
			return fmt.Errorf("record of an impossible link %q", l.Path)
		}
	}
	return nil
}

// WayBack is what it takes to undo changes: not what they write.
func WayBack(all []keylime.Written) []keylime.Written {
	var back []keylime.Written
	for _, w := range all {
		w.Places = slices.Clone(w.Places)
		for at, p := range w.Places {
			if p.After != nil {
				after := *p.After
				after.Content = nil
				w.Places[at].After = &after
			}
		}
		back = append(back, w)
	}
	return back
}

// Continues takes over what an earlier journal says, of a change that j goes on from:
// j goes back to where that one began, and nobody knows how much of it was undone.
func (j *Journal) Continues(e *Journal) {
	j.LinkMade = j.LinkMade || e.LinkMade
	j.Written = merge(e.Written, j.Written)
	j.Outputs = union(e.Outputs, j.Outputs)
	j.Services = union(e.Services, j.Services)
}

// merge adds what later changes first touched to earlier ones.
func merge(earlier, later []keylime.Written) []keylime.Written {
	all := slices.Clone(earlier)
	for _, w := range later {
		at := slices.IndexFunc(all, func(e keylime.Written) bool { return e.Component == w.Component })
		if at < 0 {
			all = append(all, w)
			continue
		}
		known := all[at]
		known.Changed = known.Changed || w.Changed
		known.Places = slices.Clone(known.Places)
		for _, p := range w.Places {
			if !slices.ContainsFunc(known.Places, func(k keylime.Place) bool { return k.Folder == p.Folder && k.Name == p.Name }) {
				known.Places = append(known.Places, p)
			}
		}
		all[at] = known
	}
	return all
}

// union lists everything once.
func union[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, one := range b {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// Unsettled reports that the configuration, or links, may be in the middle of a
// change: half a folder, a drop-in without its record.
func (j *Journal) Unsettled() bool {
	if j == nil {
		return false
	}
	half := slices.ContainsFunc(j.Written, func(w keylime.Written) bool { return len(w.Places) > 0 })
	return half || len(j.Outputs) > 0 || j.From == None
}
