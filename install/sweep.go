// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"

	"funlab.casa/omen/install/beneath"
)

// sweep clears away what an interrupted installation has left: sets that never
// became current, a parked link, a parked folder.
func (c *Change) sweep() error {
	older, err := c.store.before(c.previous)
	if err != nil {
		return err
	}
	if err := c.store.prune(c.previous, older); err != nil {
		return err
	}
	return errors.Join(c.sweepFolder(c.set().parkedLink()), c.sweepFolder(c.set().parkedFolder()))
}

// sweepFolder removes a parked link. A parked folder goes back when nothing
// stands in its place; it is removed when a set holds the same; else it is left,
// since nothing else has what is in it.
func (c *Change) sweepFolder(name string) error {
	if err := c.removeIfLink(name); err != nil {
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
		return c.config.Rename(name, c.set().link())
	}
	numbers, err := c.store.numbers()
	if err != nil {
		return err
	}
	for _, number := range numbers {
		files, err := c.store.read(number)
		if err != nil {
			return err
		}
		if same, err := c.holds(name, files); err == nil && same {
			return c.config.RemoveFlat(name)
		}
	}
	c.installer.log().Warn("folder of an interrupted installation left in place", "path", c.set().parent()+"/"+name)
	return nil
}
