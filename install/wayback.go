// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"slices"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
)

func newChange(i *Installer, lock *Lock) *Change {
	return &Change{installer: i, lock: lock, was: record.None, number: record.None, previous: record.None}
}

// undo takes back what an installation that failed had switched, newest first:
// everything is as it was before it began, also a set that was not proven then. A
// folder that was adopted stays so, and one that was torn is left to the next
// installation, whose journal tells it. So is what the disk does not let take back.
func (c *Change) undo() error {
	if !c.begun || c.rolled {
		return nil
	}
	c.rolled = true
	errs := []error{c.unconfigure(c.written[:c.applied]), c.unlinkOutputs()}
	if err := errors.Join(errs...); err != nil && c.was == record.None && !c.adopted && !c.torn {
		return err // what is still configured names the new set: it stays, and the journal tells the next one
	}
	if c.linkMade {
		errs = append(errs, c.config.Remove(c.set().link()), c.config.Sync())
	}
	if c.adopted || c.torn {
		c.was = c.previous
	}
	if c.number != record.None {
		errs = append(errs, c.store.SwitchTo(c.was))
		if failed := errors.Join(errs...); failed == nil && !c.torn {
			errs = append(errs, c.restoreRecords())
		}
	}
	return errors.Join(append(errs, c.pruneBut(c.was))...)
}

// unconfigure undoes changes of the configuration, newest first.
func (c *Change) unconfigure(written []keylime.Written) error {
	var errs []error
	for _, w := range slices.Backward(written) {
		errs = append(errs, w.Undo(c.config))
	}
	return errors.Join(errs...)
}

// restoreRecords makes the records what they were before this change.
func (c *Change) restoreRecords() error {
	if c.adopted {
		if c.earlier != nil && c.earlier.From == c.previous {
			return record.Write(c.store.Dir, record.JournalName, c.earlier)
		}
		return c.clearJournal()
	}
	if c.journal == nil {
		return c.restoreFound()
	}
	if c.earlier == nil {
		return errors.Join(c.clearJournal(), c.restoreFound())
	}
	return errors.Join(record.Write(c.store.Dir, record.JournalName, c.earlier), c.restoreFound())
}

// goBack makes the proven set current again, with the configuration that goes with
// it: the configuration first, so that what the journal says holds until the end.
func (c *Change) goBack() error {
	c.rolled = true
	if err := errors.Join(c.unconfigure(c.journal.Written), c.unlinkMade()); err != nil {
		return err // what is still configured needs the link
	}
	if c.journal.LinkMade {
		if err := errors.Join(c.place().RemoveIfLink(c.set().link()), c.config.Sync()); err != nil {
			return err
		}
	}
	return c.store.SwitchTo(c.previous)
}

// takeBackEarlier goes all the way back to the proven set, from an installation
// that ended in the middle: the journal stays, since services may have something
// else in memory. It returns the set.
func (c *Change) takeBackEarlier() ([]beneath.File, error) {
	if c.previous != c.earlier.From { // it is gone
		return c.store.Read(c.was)
	}
	config, err := c.installer.existingConfig()
	if err != nil {
		return nil, err
	}
	if config != nil {
		defer config.Close()
		taker := &Change{installer: c.installer, store: c.store, config: config, journal: c.earlier, previous: c.previous}
		err = taker.goBack()
	} else {
		err = c.store.SwitchTo(c.previous)
	}
	if err != nil {
		return nil, err
	}
	before, number, err := c.currentSet()
	c.was = number
	return before, err
}

// setAside keeps the set that was given up, where this change had made it, and
// removes what is not needed any more.
func (c *Change) setAside() error {
	var errs []error
	if c.fresh {
		errs = append(errs, c.store.Refuse(c.number))
	}
	return errors.Join(append(errs, c.pruneBut(c.previous))...)
}

// unlinkMade takes back the links to CA bundles that the journal tells of.
func (c *Change) unlinkMade() error { return c.installer.removeLinks(c.journal.Outputs) }

// removeLinks removes links of ours; what stands there by now and is none is left.
func (i *Installer) removeLinks(links []record.Link) error {
	var errs []error
	for _, link := range links {
		if ours, err := i.hasOutput(link); err == nil && ours {
			errs = append(errs, i.inFolderOf(link, (*beneath.Dir).Remove))
		}
	}
	return errors.Join(errs...)
}
