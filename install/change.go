// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/place"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
)

// Change is an installation in flight: what Install has switched to, and the way
// back. Reload, Probe and RollBack are called in that order, Close always.
type Change struct {
	installer *Installer
	lock      *Lock
	store     *generation.Store
	config    *beneath.Dir
	plan      *plan
	was       int  // the set that was current
	number    int  // this set, none before it is written
	previous  int  // the set to go back to, or none
	fresh     bool // this set was not there before
	begun     bool // something may have been written
	linkMade  bool
	outputs   []record.Link   // links made
	found     *record.Found   // how the host was before us, nil before it is known
	before    *record.Found   // the same, as it stands on the disk without this change
	adopted   bool            // the folder of people is a generation now
	torn      bool            // that failed, and the folder is not whole any more
	earlier   *record.Journal // of a change that was not proven, nil for none
	unknown   bool            // there was such a journal, and it cannot be read
	journal   *record.Journal // of this change, on the disk
	madeRoom  bool            // the directory that the link stands in was not there
	written   []keylime.Written
	applied   int            // how many of them may be on the disk
	switched  service.Moment // 0 is not known
	restart   []served       // services that must read again
	touched   []served       // those that Reload has begun with
	rolled    bool
}

func (c *Change) set() Set { return c.installer.set() }

// Generation is the number of the set that Install made current.
func (c *Change) Generation() int { return c.number }

// Before is the number of the set that RollBack goes back to; false when there
// is none.
func (c *Change) Before() (int, bool) { return c.previous, c.previous != record.None }

// Services names the services that Reload restarts, in order: those of which a
// certificate, the CA bundle or the configuration changed.
func (c *Change) Services() []string {
	var names []string
	for _, s := range c.restart {
		names = append(names, s.profile.Name)
	}
	return names
}

// install does the work of Installer.Install; undo takes back what it did.
func (c *Change) install(ctx context.Context, items []Item) error {
	if !slices.ContainsFunc(items, func(i Item) bool { return !i.carried() || i.rootOnly() }) {
		return errors.New("nothing to install: no item has a certificate")
	}
	i := c.installer
	before, err := c.look()
	if err != nil {
		return err
	}
	if c.earlier.Unsettled() {
		if before, err = c.takeBackEarlier(); err != nil {
			return err
		}
	}
	if c.plan, err = i.makePlan(ctx, items); err != nil {
		return err
	}
	settled := record.None // of which the agent's version is no question any more
	if c.ours(c.was) {
		settled = c.was
	}
	if err := i.checkAgentVersion(ctx, c.plan, settled, before); err != nil {
		return err
	}
	if _, err := i.absentOutputs(c.plan); err != nil {
		return err
	}
	if c.config, c.madeRoom, err = i.openConfig(); err != nil {
		return err
	}
	return c.write(ctx, before)
}

// look opens the sets and reads where this host stands: what is current, what is
// proven, what was found. It returns the current set.
func (c *Change) look() ([]beneath.File, error) {
	i := c.installer
	opened, err := generation.Open(i.root(), i.stateDir(), i.set().Name)
	if err != nil {
		return nil, err
	}
	c.store = &opened
	before, number, err := c.currentSet()
	if err != nil {
		return nil, err
	}
	c.was = number
	if c.earlier, c.unknown, err = c.readJournal(); err != nil {
		return nil, err
	}
	if c.found, err = c.readFound(); err != nil {
		return nil, err
	}
	if err := c.found.Moved(c.set().Folder); err != nil {
		return nil, err
	}
	c.before = c.found
	c.previous, err = c.provenSet()
	return before, err
}

// currentSet reads the set that is current; a link to a set that is gone counts
// as none.
func (c *Change) currentSet() ([]beneath.File, int, error) {
	number, err := c.store.Current()
	if err != nil || number == record.None {
		return nil, record.None, err
	}
	files, err := c.store.Read(number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, record.None, nil
	}
	return files, number, err
}

// write is the part of Install that changes the disk. Everything that needs
// space is written before anything is switched, the journal last.
func (c *Change) write(ctx context.Context, before []beneath.File) error {
	c.begun = true
	if err := c.sweep(); err != nil {
		return err
	}
	state, err := c.place().State()
	if err != nil {
		return err
	}
	var folder *record.Folder
	if state == place.Filled {
		before, folder, err = c.copyFolder()
	} else {
		before, err = c.fitToCarry(ctx, before)
	}
	if err != nil {
		return err
	}
	files, err := c.compose(before)
	if err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.add(files); err != nil {
		return err
	}
	c.restart = c.withBehind(ctx, c.concerned(before, files))
	if err := c.announce(ctx, state, folder); err != nil {
		return err
	}
	if folder != nil {
		if err := c.takeOver(folder.Generation, before); err != nil {
			return err
		}
	}
	return c.turn(state)
}

// add writes the new set.
func (c *Change) add(files []beneath.File) error {
	next, err := c.store.Next()
	if err != nil {
		return err
	}
	next = max(next, 1) // 0 is for what people had installed
	if err := c.store.Write(next, files, c.plan.dropIns...); err != nil {
		return err
	}
	c.number, c.fresh = next, true
	return nil
}

// prepare learns what will change in the configuration.
func (c *Change) prepare() error {
	for _, drop := range c.plan.dropIns {
		written, err := drop.Prepare(c.installer.root(), c.config, time.Now())
		if err != nil {
			return err
		}
		c.written = append(c.written, written)
	}
	return nil
}

// turn switches: current to the new set, the link where there is none, the
// drop-ins to the new settings.
func (c *Change) turn(state place.State) error {
	if err := c.store.SwitchTo(c.number); err != nil {
		return err
	}
	if state == place.Absent {
		made, err := c.place().Link()
		c.linkMade = made
		if err != nil {
			return err
		}
	}
	if err := c.linkOutputs(); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	c.switched = service.Now()
	return nil
}

// configure makes the prepared changes of the configuration.
func (c *Change) configure() error {
	for _, written := range c.written {
		c.applied++
		if err := written.Apply(c.config); err != nil {
			return err
		}
	}
	return nil
}

// compose builds the new set: fresh pairs, the CA files, and every file of the
// set before that is not replaced. Files that are not ours stay too, since
// somebody's configuration may name them.
func (c *Change) compose(before []beneath.File) ([]beneath.File, error) {
	var files []beneath.File
	for _, m := range c.plan.members {
		if m.fresh != nil {
			files = append(files, m.files()...)
		}
		root, err := m.rootFile()
		if err != nil {
			return nil, err
		}
		files = append(files, root...)
	}
	trust, err := c.trust(before)
	if err != nil {
		return nil, err
	}
	files = append(files, trust...)
	if files, err = c.addForms(files, before); err != nil {
		return nil, err
	}
	files = append(files, c.carry(fileset.WithoutForms(c.withoutOutputs(before)), files)...)
	if len(files) > record.MaxFiles { // it could be written, and never be read again
		return nil, remedy.Errorf(c.place().TidyHint(), "the set would have %d files, at most %d", len(files), record.MaxFiles)
	}
	return files, nil
}

func (m member) files() []beneath.File {
	files := []beneath.File{
		fileset.Public(m.item.Name+".crt", m.fresh.ChainPEM()),
		{Name: m.item.Name + ".key", Mode: m.keyMode(), UID: m.owner.UID, GID: m.owner.GID, Content: m.fresh.Key},
	}
	if m.item.Sealed != nil {
		files = append(files, sealedFile(m))
	}
	return files
}

// concerned picks the services that have something new to read: a certificate, the
// CA file that verifies their peers, or the configuration.
func (c *Change) concerned(before, files []beneath.File) []served {
	other := map[string]bool{}
	for _, name := range []string{keylime.BundleFile, keylime.ClientsBundleFile, keylime.RootFile} {
		other[name] = fileset.OtherCertificates(before, files, name)
	}
	var services []served
	for _, s := range c.plan.services {
		fresh := slices.ContainsFunc(c.plan.members, func(m member) bool {
			return m.profile.Service == s.profile.Name && (m.fresh != nil || other[m.profile.Bundle()])
		})
		if fresh || c.toldAnew(s) || c.suspect(s.profile.Name) {
			services = append(services, s)
		}
	}
	return services
}

// toldAnew reports that the configuration of a service's component has changed.
func (c *Change) toldAnew(s served) bool {
	return slices.ContainsFunc(c.written, func(w keylime.Written) bool { return w.Changed && w.Component == s.profile.Component })
}

// Close prunes all sets but the current one, the one before it and what was found
// here, and gives the lock back. Services are not touched.
func (c *Change) Close() error {
	var err error
	if !c.rolled {
		err = c.store.Prune(c.number, c.previous, c.found.ByHand())
	}
	return errors.Join(err, c.release())
}

func (c *Change) release() error {
	if c.plan != nil {
		c.plan.close()
	}
	if c.config != nil {
		c.config.Close()
	}
	if c.store != nil {
		c.store.Close()
	}
	return c.lock.Close()
}
