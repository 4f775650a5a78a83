// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"

	"funlab.casa/omen/install/beneath"
)

// sweep clears away what an interrupted installation has left: sets that never
// became current, a parked link, a parked folder.
func (c *Change) sweep() error {
	if err := errors.Join(c.pruneBut(c.was), c.store.PruneRefused()); err != nil {
		return err
	}
	return errors.Join(c.sweepFolder(c.place().ParkedLink()), c.sweepFolder(c.place().ParkedFolder()), c.sweepCopy())
}

// pruneBut removes the sets that are not needed while number is current: kept are
// it, the proven one, each with the one before it, where Return came from, and what
// was found here. When it is not known which they are, all stay.
func (c *Change) pruneBut(number int) error {
	keep := []int{number, c.previous, c.found.ByHand()}
	if !c.fresh {
		keep = append(keep, c.number)
	}
	for _, later := range []int{number, c.previous} {
		older, err := c.store.Before(later)
		if err != nil {
			return err
		}
		keep = append(keep, older)
	}
	return c.store.Prune(keep...)
}

// sweepFolder removes a parked link. A parked folder goes back when nothing
// stands in its place; it is removed when a set holds the same; else it is left,
// since nothing else has what is in it.
func (c *Change) sweepFolder(name string) error {
	if err := c.place().RemoveIfLink(name); err != nil {
		return err
	}
	parked, err := c.config.Stat(name)
	if err != nil || parked.Kind != beneath.Folder {
		return err
	}
	place, err := c.config.Stat(c.set().link())
	if err != nil {
		return err
	}
	if place.Kind == beneath.Absent {
		return errors.Join(c.config.Rename(name, c.set().link()), c.config.Sync())
	}
	numbers, err := c.store.Numbers()
	if err != nil {
		return err
	}
	for _, number := range numbers {
		files, err := c.store.Read(number)
		if err != nil {
			return err
		}
		if same, err := c.place().Holds(name, files); err == nil && same {
			return c.config.RemoveFlat(name)
		}
	}
	c.installer.log().Warn("folder of an interrupted installation left in place", "path", c.set().parent()+"/"+name)
	return nil
}

// sweepCopy removes what an uninstallation has left: a copy of what is in a set, or
// our link.
func (c *Change) sweepCopy() error {
	name := c.place().FoundFolder()
	return errors.Join(c.place().RemoveIfLink(name), c.config.RemoveFlat(name))
}
