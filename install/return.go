// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/place"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
)

// ErrNoReturn means that there is no set that could be gone back to, or that it
// cannot serve. Nothing has changed.
var ErrNoReturn = errors.New("cannot go back")

// Return makes the set before the current one current again, with the configuration
// that went with it: after an installation that was never proven, the last proven
// set; else the generation before; at last what people had set up. Items need
// neither chain nor key. As after Install, services go on with what they have loaded
// until Reload; Probe, RollBack (to where Return came from) and Close follow.
//
// The set is judged like a fresh reply first. What must not serve is ErrNoReturn,
// and nothing has changed.
func (i *Installer) Return(ctx context.Context, items []Item) (*Change, error) {
	lock, err := i.lock()
	if err != nil {
		return nil, i.explainDisk(err)
	}
	c := newChange(i, lock)
	if err := c.comeBack(ctx, items); err != nil {
		return nil, i.explainDisk(errors.Join(err, c.undo(), c.release()))
	}
	i.log().Info("went back", "generation", c.number, "from", c.was)
	return c, nil
}

func (c *Change) comeBack(ctx context.Context, items []Item) error {
	now, err := c.look()
	if err != nil {
		return err
	}
	target, err := c.target()
	if err != nil {
		return err
	}
	if c.plan, err = c.installer.lookUp(ctx, items); err != nil {
		return err
	}
	if c.config, _, err = c.installer.openConfig(); err != nil {
		return err
	}
	state, err := c.place().State()
	if err == nil && state == place.Filled {
		err = remedy.Errorf("omen-agent renew takes it over", "%w: %s is a folder again", ErrNoReturn, c.set().Folder)
	}
	if err != nil {
		return err
	}
	then, err := c.judgeReturn(ctx, target)
	if err != nil {
		return err
	}
	if c.earlier != nil && target == c.earlier.From && target != c.was {
		return c.backToProven(now, then)
	}
	if err := c.retell(target); err != nil {
		return err
	}
	return c.turnBack(state, target, now, then)
}

// backToProven takes an installation back that ended in the middle. There is no way
// further back from there: what was current has never been proven.
func (c *Change) backToProven(now, then []beneath.File) error {
	c.restart = c.differing(now, then)
	c.journal = c.earlier
	if _, err := c.takeBackEarlier(); err != nil {
		return err
	}
	c.number = c.was
	return nil
}

// target is the number of the set to go back to.
func (c *Change) target() (int, error) {
	if c.was == record.None {
		return record.None, fmt.Errorf("%w: %w", ErrNoReturn, ErrNotInstalled)
	}
	target := c.previous
	if c.earlier == nil || c.earlier.From == c.was || target == c.was {
		var err error
		if target, err = c.store.Before(c.was); err != nil {
			return record.None, err
		}
	}
	if target == record.None {
		return record.None, remedy.Errorf("omen-agent uninstall puts this host back as it was found", "%w: there is no set before generation %d", ErrNoReturn, c.was)
	}
	return target, nil
}

// lookUp is a plan for what is installed already: who must restart, and no check
// of what would be written.
func (i *Installer) lookUp(ctx context.Context, items []Item) (*plan, error) {
	members, err := judge(withoutBytes(items), time.Now())
	if err != nil {
		return nil, err
	}
	p := &plan{members: members, sign: i.Sign}
	if err := i.findServices(ctx, p); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// withoutBytes are items as the configuration has them.
func withoutBytes(items []Item) []Item {
	bare := slices.Clone(items)
	for at := range bare {
		bare[at].Chain, bare[at].Key, bare[at].Sealed, bare[at].CA = nil, nil, nil, nil
	}
	return bare
}

// judgeReturn judges everything that is to be current again, also the pairs of
// people that no item of ours names.
func (c *Change) judgeReturn(ctx context.Context, target int) ([]beneath.File, error) {
	files, err := c.judgeSet(ctx, target, c.plan.members, time.Now())
	for _, f := range files {
		name, isKey := strings.CutSuffix(f.Name, ".key")
		if !isKey || c.ours(target) || err != nil {
			continue
		}
		err = judgeOld(files, member{item: Item{Name: name}}, nil, time.Now(), false)
	}
	if err != nil {
		return nil, fmt.Errorf("%w to generation %d: %w; generation %d stays", ErrNoReturn, target, err, c.was)
	}
	return files, nil
}

// retell prepares what components were told with a set. Those that it told nothing
// are left as they were found.
func (c *Change) retell(target int) error {
	m, _, err := c.store.Inspect(target)
	if err != nil {
		return err
	}
	var done []string
	if m != nil && c.ours(target) {
		for _, t := range m.Told {
			drop, known := t.Again()
			if !known {
				continue
			}
			written, err := drop.Prepare(c.installer.root(), c.config, time.Now())
			if err != nil {
				return err
			}
			c.written, done = append(c.written, written), append(done, written.Component)
		}
	}
	for _, component := range c.components() {
		if slices.Contains(done, component) {
			continue
		}
		written, err := c.leave(component)
		if err != nil {
			return err
		}
		c.written = append(c.written, written)
	}
	return nil
}

// turnBack switches, under a journal.
func (c *Change) turnBack(state place.State, target int, now, then []beneath.File) error {
	c.begun, c.number, c.previous = true, target, c.was
	c.restart = c.differing(now, then)
	j := &record.Journal{
		Version: record.JournalVersion, From: c.was, To: target, Adopted: record.None, LinkMade: state == place.Absent,
		Written: record.WayBack(c.written), Services: c.Services(),
	}
	if err := c.begin(j); err != nil {
		return err
	}
	return c.turn(state)
}

// differing picks the services that would read something else in one set than in
// the other.
func (c *Change) differing(now, then []beneath.File) []served {
	var services []served
	for _, s := range c.plan.services {
		other := slices.ContainsFunc(c.plan.members, func(m member) bool {
			return m.profile.Service == s.profile.Name && (fileset.OtherFile(now, then, m.item.Name+".crt") ||
				fileset.OtherFile(now, then, m.item.Name+".key") || fileset.OtherFile(now, then, m.profile.Bundle()) || m.profile.RootOnly && fileset.OtherFile(now, then, keylime.RootFile))
		})
		if other || c.toldAnew(s) || c.suspect(s.profile.Name) {
			services = append(services, s)
		}
	}
	return services
}
