// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"funlab.casa/omen/install/keylime"
)

const (
	journalName    = "journal"
	journalVersion = 1
	maxEntries     = 64 // of each list in a record
	maxPath        = 4096
)

// profileName is the shape of what a record may name a service or component by.
var profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// journal is written before an installation switches anything, and removed when
// the new set is proven or everything is as before. So where it is found, its
// installation ended in the middle: whatever is current but From has not been
// proven, and the services it names may have something else in memory.
type journal struct {
	Version  int               `json:"version"`
	From     int               `json:"from"`    // the proven set, -1 for none
	To       int               `json:"to"`      // the set to be proven
	Adopted  int               `json:"adopted"` // the copy of the folder that the link replaces, -1 for none
	LinkMade bool              `json:"link_made"`
	Written  []keylime.Written `json:"written"`  // the way back to the configuration that goes with From
	Outputs  []outputLink      `json:"outputs"`  // links made
	Services []string          `json:"services"` // by profile
}

// outputLink is an output as it is written down.
type outputLink struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

func (j *journal) check() error {
	switch {
	case j.Version != journalVersion:
		return fmt.Errorf("journal of version %d", j.Version)
	case !isNumber(j.From) || !isNumber(j.To) || j.To == none || !isNumber(j.Adopted):
		return errors.New("journal names an impossible generation")
	case len(j.Written) > maxEntries || len(j.Services) > maxEntries:
		return errors.New("journal is too long")
	}
	if at := slices.IndexFunc(j.Services, func(s string) bool { return !profileName.MatchString(s) }); at >= 0 {
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
	if !profileName.MatchString(w.Component) || len(w.Places) > maxEntries {
		return fmt.Errorf("record of an impossible component %q", w.Component)
	}
	for _, p := range w.Places {
		if !plainName(p.Name) || p.Folder != "" && !plainName(p.Folder) {
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

func checkLinks(links []outputLink) error {
	if len(links) > maxEntries {
		return errors.New("record has too many links")
	}
	for _, l := range links {
		if !path.IsAbs(l.Path) || path.Clean(l.Path) != l.Path || len(l.Path) > maxPath || len(l.Target) > maxPath || strings.Contains(l.Path+l.Target, "\x00") {
			return fmt.Errorf("record of an impossible link %q", l.Path)
		}
	}
	return nil
}

// readJournal returns the journal of an installation that ended in the middle,
// nil where there is none. bad: there was one that says nothing.
func (c *Change) readJournal() (j *journal, bad bool, err error) {
	j = &journal{}
	there, bad, err := recall(c.store.dir, journalName, j, c.installer.log())
	if !there {
		return nil, bad, err
	}
	return j, false, nil
}

// provenSet is the set that RollBack goes back to.
func (c *Change) provenSet() (int, error) {
	if c.earlier == nil || c.earlier.From == c.was {
		return c.was, nil
	}
	if c.earlier.From != none {
		there, err := c.store.has(c.earlier.From)
		if err != nil {
			return none, err
		}
		if !there {
			c.installer.log().Warn("the last proven set is gone", "generation", c.earlier.From)
			return c.was, nil
		}
	}
	c.installer.log().Warn("an installation ended before it was proven", "current", c.was, "proven", c.earlier.From, "services", c.earlier.Services)
	return c.earlier.From, nil
}

// announce writes down what this change is about to do: from here on it can be
// taken back by whoever comes next.
func (c *Change) announce(ctx context.Context, state certsState, folder *foundFolder) error {
	absent, err := c.installer.absentOutputs(c.plan)
	if err != nil {
		return err
	}
	if err := c.recordFound(ctx, folder); err != nil {
		return err
	}
	j := &journal{
		Version: journalVersion, From: c.previous, To: c.number, Adopted: none, LinkMade: state == certsAbsent,
		Written: wayBack(c.written), Services: c.Services(),
	}
	if folder != nil {
		j.From, j.Adopted = folder.Generation, folder.Generation
	}
	for _, o := range absent {
		j.Outputs = append(j.Outputs, outputLink{o.path, o.target})
	}
	return c.begin(j)
}

// begin writes the journal. What an earlier one says is taken over: this change
// goes back to where that one began, and nobody knows how much of it was undone.
func (c *Change) begin(j *journal) error {
	if e := c.earlier; e != nil {
		j.LinkMade = j.LinkMade || e.LinkMade
		j.Written = merge(e.Written, j.Written)
		j.Outputs = union(e.Outputs, j.Outputs)
		j.Services = union(e.Services, j.Services)
	}
	c.journal = j
	return writeRecord(c.store.dir, journalName, j)
}

// wayBack is what it takes to undo changes: not what they write.
func wayBack(all []keylime.Written) []keylime.Written {
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

// suspect reports that an earlier change may have left the service with
// something else in memory than what is proven.
func (c *Change) suspect(service string) bool {
	return c.unknown || c.earlier != nil && slices.Contains(c.earlier.Services, service)
}

// clearJournal says that everything is proven, or as it was.
func (c *Change) clearJournal() error {
	if err := forget(c.store.dir, journalName); err != nil {
		return err
	}
	c.journal, c.earlier = nil, nil
	return nil
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
