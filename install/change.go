// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/gofrs/flock"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
)

// Change is an installation in flight: what Install has switched to, and the way
// back. Reload, Probe and RollBack are called in that order, Close always.
type Change struct {
	installer *Installer
	lock      *flock.Flock
	store     *store
	config    *beneath.Dir
	plan      *plan
	number    int  // this set, none before it is written
	previous  int  // the set to go back to, or none
	begun     bool // something may have been written
	linkMade  bool
	written   []keylime.Written
	restart   []served // services that must read again
	touched   []served // those that Reload has begun with
	rolled    bool
}

func (c *Change) set() Set { return c.installer.set() }

// Generation is the number of the set that Install made current.
func (c *Change) Generation() int { return c.number }

// Before is the number of the set that RollBack goes back to; false when there
// is none.
func (c *Change) Before() (int, bool) { return c.previous, c.previous != none }

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
	if !slices.ContainsFunc(items, func(i Item) bool { return !i.carried() }) {
		return errors.New("nothing to install: no item has a certificate")
	}
	i := c.installer
	opened, err := openStore(i.root(), i.stateDir(), i.set())
	if err != nil {
		return err
	}
	c.store = &opened
	before, number, err := c.currentSet()
	if err != nil {
		return err
	}
	if c.plan, err = i.makePlan(ctx, items); err != nil {
		return err
	}
	if err := i.checkAgentVersion(ctx, c.plan, number, before); err != nil {
		return err
	}
	if c.config, err = i.openConfig(); err != nil {
		return err
	}
	c.previous = number
	return c.write(before)
}

// currentSet reads the set that is current; a link to a set that is gone counts
// as none.
func (c *Change) currentSet() ([]beneath.File, int, error) {
	number, err := c.store.current()
	if err != nil || number == none {
		return nil, none, err
	}
	files, err := c.store.read(number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none, nil
	}
	return files, number, err
}

// write is the part of Install that changes the disk. Everything that needs
// space is written before anything is switched.
func (c *Change) write(before []beneath.File) error {
	c.begun = true
	if err := c.sweep(); err != nil {
		return err
	}
	state, err := c.stateOfCerts()
	if err != nil {
		return err
	}
	adopted := none
	if state == certsFolder {
		if before, adopted, err = c.copyFolder(); err != nil {
			return err
		}
	}
	files, err := c.compose(before)
	if err != nil {
		return err
	}
	next, err := c.store.next()
	if err != nil {
		return err
	}
	next = max(next, 1) // 0 is for what people had installed
	if err := c.store.write(next, files); err != nil {
		return err
	}
	c.number = next
	if adopted != none {
		if err := c.adopt(adopted, before); err != nil {
			return err
		}
		c.previous = adopted
	}
	if err := c.turn(state); err != nil {
		return err
	}
	c.restart = c.concerned(before, files)
	return nil
}

// turn switches: current to the new set, the link where there is none, the
// drop-ins to the new settings.
func (c *Change) turn(state certsState) error {
	if err := c.store.switchTo(c.number); err != nil {
		return err
	}
	if state == certsAbsent {
		if err := c.makeLink(); err != nil {
			return err
		}
	}
	return c.writeDropIns()
}

func (c *Change) writeDropIns() error {
	for _, drop := range c.plan.dropIns {
		written, err := drop.Write(c.config)
		c.written = append(c.written, written)
		if err != nil {
			return err
		}
	}
	return nil
}

// compose builds the new set: fresh pairs, the CA bundle, and every file of the
// set before that is not replaced. Files that are not ours stay too, since
// somebody's configuration may name them.
func (c *Change) compose(before []beneath.File) ([]beneath.File, error) {
	var files []beneath.File
	var authorities []*x509.Certificate
	carries := false
	for _, m := range c.plan.members {
		if m.fresh == nil {
			carries = true
			continue
		}
		files = append(files, m.files()...)
		ca, err := parseCertificates(m.item.CA)
		if err != nil {
			return nil, err
		}
		authorities = append(append(authorities, m.fresh.chain[1:]...), ca...)
	}
	if old, found := file(before, keylime.BundleFile); found && carries {
		ca, err := parseCertificates(old.Content)
		if err != nil {
			return nil, err
		}
		authorities = append(authorities, ca...)
	}
	files = append(files, beneath.File{Name: keylime.BundleFile, Mode: certMode, UID: os.Geteuid(), GID: os.Getegid(), Content: bundle(authorities)})
	files = append(files, notIn(before, files)...)
	if len(files) > maxFiles { // it could be written, and never be read again
		return nil, remedy.Errorf(c.set().tidyHint(), "the set would have %d files, at most %d", len(files), maxFiles)
	}
	return files, nil
}

// notIn leaves out what is replaced, and what is spoiled: see store.read.
func notIn(before, files []beneath.File) []beneath.File {
	return slices.DeleteFunc(slices.Clone(before), func(old beneath.File) bool {
		_, replaced := file(files, old.Name)
		return replaced || len(old.Content) == 0
	})
}

func (m member) files() []beneath.File {
	files := []beneath.File{
		{Name: m.item.Name + ".crt", Mode: certMode, UID: os.Geteuid(), GID: os.Getegid(), Content: m.fresh.chainPEM()},
		{Name: m.item.Name + ".key", Mode: keyMode, UID: m.owner.UID, GID: m.owner.GID, Content: m.fresh.key},
	}
	if m.item.Sealed != nil {
		files = append(files, sealedFile(m))
	}
	return files
}

// concerned picks the services that have something new to read.
func (c *Change) concerned(before, files []beneath.File) []served {
	oldCA, _ := file(before, keylime.BundleFile)
	newCA, _ := file(files, keylime.BundleFile)
	all := string(oldCA.Content) != string(newCA.Content)
	var services []served
	for _, s := range c.plan.services {
		fresh := slices.ContainsFunc(c.plan.members, func(m member) bool { return m.fresh != nil && m.profile.Service == s.profile.Name })
		told := slices.ContainsFunc(c.written, func(w keylime.Written) bool { return w.Changed && w.Component() == s.profile.Component })
		if all || fresh || told {
			services = append(services, s)
		}
	}
	return services
}

// undo takes back what was switched, newest first, and removes the new set.
func (c *Change) undo() error {
	if !c.begun || c.rolled {
		return nil
	}
	c.rolled = true
	var errs []error
	for at := len(c.written) - 1; at >= 0; at-- {
		errs = append(errs, c.written[at].Undo(c.config))
	}
	if c.linkMade {
		errs = append(errs, c.config.Remove(c.set().link()), c.config.Sync())
	}
	if c.number != none {
		errs = append(errs, c.store.switchTo(c.previous))
	}
	older, err := c.store.before(c.previous)
	return errors.Join(append(errs, err, c.store.prune(c.previous, older))...)
}

// Close prunes all sets but the current one and the one before it, and gives
// the lock back. Services are not touched.
func (c *Change) Close() error {
	var err error
	if !c.rolled {
		err = c.store.prune(c.number, c.previous)
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
		c.store.close()
	}
	return c.lock.Close()
}
