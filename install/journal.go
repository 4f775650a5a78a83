// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"slices"

	"funlab.casa/omen/install/place"
	"funlab.casa/omen/install/record"
)

// readJournal returns the journal of an installation that ended in the middle,
// nil where there is none. bad: there was one that says nothing.
func (c *Change) readJournal() (j *record.Journal, bad bool, err error) {
	j = &record.Journal{}
	there, bad, err := record.Recall(c.store.Dir, record.JournalName, j, c.installer.log())
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
	if c.earlier.From != record.None {
		there, err := c.store.Has(c.earlier.From)
		if err != nil {
			return record.None, err
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
func (c *Change) announce(ctx context.Context, state place.State, folder *record.Folder) error {
	absent, err := c.installer.absentOutputs(c.plan)
	if err != nil {
		return err
	}
	if err := c.recordFound(ctx, folder); err != nil {
		return err
	}
	j := &record.Journal{
		Version: record.JournalVersion, From: c.previous, To: c.number, Adopted: record.None, LinkMade: state == place.Absent,
		Written: record.WayBack(c.written), Outputs: absent, Services: c.Services(),
	}
	if folder != nil {
		j.From, j.Adopted = folder.Generation, folder.Generation
	}
	return c.begin(j)
}

// begin writes the journal. What an earlier one says is taken over: this change
// goes back to where that one began, and nobody knows how much of it was undone.
func (c *Change) begin(j *record.Journal) error {
	if c.earlier != nil {
		j.Continues(c.earlier)
	}
	c.journal = j
	return record.Write(c.store.Dir, record.JournalName, j)
}

// suspect reports that an earlier change may have left the service with
// something else in memory than what is proven.
func (c *Change) suspect(service string) bool {
	return c.unknown || c.earlier != nil && slices.Contains(c.earlier.Services, service)
}

// clearJournal says that everything is proven, or as it was.
func (c *Change) clearJournal() error {
	if err := record.Forget(c.store.Dir, record.JournalName); err != nil {
		return err
	}
	c.journal, c.earlier = nil, nil
	return nil
}
