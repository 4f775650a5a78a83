// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/place"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
)

// Uninstalled tells what Uninstall did.
type Uninstalled struct {
	Folder    string   `json:"folder"`    // what stands at the set's folder now: "folder", "nothing", or "left" of what is not ours
	Restarted []string `json:"restarted"` // names of services, as they are called here
	Stopped   []string `json:"stopped"`   // those that did not run before us
	Warnings  []string `json:"warnings"`  // what could not be had as it was
}

// Uninstall puts the host back as it was found at the first installation: the
// configuration, the folder with its files, modes and owners (nothing where there
// was nothing), links to CA bundles. It restarts the services that ran then, stops
// those that did not, and removes every set and record. It can be run again after
// it was interrupted. Nothing of ours on the host is ErrNotInstalled.
//
// A service that does not come back is an error, and everything else is done.
func (i *Installer) Uninstall(ctx context.Context, items []Item) (*Uninstalled, error) {
	if there, err := i.hasState(); err != nil || !there {
		return nil, errors.Join(err, ErrNotInstalled)
	}
	lock, err := i.lock()
	if err != nil {
		return nil, i.explainDisk(err)
	}
	c := newChange(i, lock)
	done, err := c.uninstall(ctx, items)
	return done, i.explainDisk(errors.Join(err, c.release()))
}

// hasState reports that something of an installation is left to remove.
func (i *Installer) hasState() (bool, error) {
	state, err := beneath.Open(i.root(), i.stateDir())
	if err != nil {
		return false, beneath.IgnoreAbsent(err)
	}
	defer state.Close()
	set, err := state.Stat(i.set().Name)
	if err != nil {
		return false, err
	}
	lock, err := state.Stat(lockName)
	return set.Kind != beneath.Absent || lock.Kind != beneath.Absent, err
}

func (c *Change) uninstall(ctx context.Context, items []Item) (*Uninstalled, error) {
	done := &Uninstalled{}
	if _, err := c.look(); err != nil {
		return nil, err
	}
	installed := c.was != record.None || c.found != nil
	c.plan = c.lookAround(ctx, items, done)
	var err error
	if c.config, err = c.installer.existingConfig(); err != nil {
		return nil, err
	}
	done.Folder = "nothing"
	if c.config != nil {
		if err := c.putBack(done); err != nil {
			return done, err
		}
	}
	var failed error
	if installed {
		failed = c.putBackServices(ctx, done)
	}
	return done, errors.Join(failed, c.removeStore(done))
}

// existingConfig opens the directory that the set's link stands in; nil where there
// is none.
func (i *Installer) existingConfig() (*beneath.Dir, error) {
	config, err := beneath.Open(i.root(), i.set().parent())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return config, err
}

// lookAround finds the services that the configuration names, and those that were
// met before; one that is not found any more is no reason to stay.
func (c *Change) lookAround(ctx context.Context, items []Item, done *Uninstalled) *plan {
	p := &plan{}
	for _, profile := range profilesOf(items) {
		at := slices.IndexFunc(items, func(item Item) bool { return item.Profile == profile.Name })
		met := c.found != nil && slices.ContainsFunc(c.found.Services, func(s record.Service) bool { return s.Profile == profile.Name })
		if at < 0 && !met {
			continue
		}
		m := member{profile: profile}
		if at >= 0 {
			m.item = withoutBytes(items[at : at+1])[0]
		}
		p.members = append(p.members, m)
		if profile.Service != profile.Name {
			continue
		}
		found, err := c.installer.findService(ctx, m.item, profile)
		if err != nil {
			done.warn("%s is not restarted: %v", profile.Name, err)
			continue
		}
		p.services = append(p.services, found)
	}
	return p
}

func (u *Uninstalled) warn(format string, args ...any) {
	u.Warnings = append(u.Warnings, fmt.Sprintf(format, args...))
}

// putBack puts configuration, links and folder back, in this order: what the
// configuration of people names was there with the link too.
func (c *Change) putBack(done *Uninstalled) error {
	if c.earlier != nil {
		if err := errors.Join(c.unconfigure(c.earlier.Written), c.installer.removeLinks(c.earlier.Outputs)); err != nil {
			return err
		}
	}
	for _, component := range c.components() {
		written, err := c.leave(component)
		if err == nil {
			err = written.Apply(c.config)
		}
		if err != nil {
			return err
		}
	}
	var links []record.Link
	if c.found != nil {
		links = c.found.Outputs
	}
	if err := c.installer.removeLinks(links); err != nil {
		return err
	}
	if err := errors.Join(c.sweepFolder(c.place().ParkedLink()), c.sweepFolder(c.place().ParkedFolder()), c.sweepCopy()); err != nil {
		return err
	}
	return c.putBackFolder(done)
}

func (c *Change) putBackFolder(done *Uninstalled) error {
	state, err := c.place().State()
	if errors.Is(err, ErrNotAdoptable) {
		done.Folder = "left"
		done.warn("%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case state == place.Filled:
		done.Folder = "folder"
	case c.found.ByHand() != record.None:
		done.Folder = "folder"
		return c.rebuildFolder(state, done)
	case state == place.Linked:
		return errors.Join(c.config.Remove(c.set().link()), c.config.Sync())
	}
	return nil
}

// rebuildFolder makes the folder that people had, and has it take the link's place.
func (c *Change) rebuildFolder(state place.State, done *Uninstalled) error {
	_, damage, err := c.store.Inspect(c.found.ByHand())
	if err != nil {
		return err
	}
	for _, d := range damage {
		if d.Lost() {
			done.warn("what was found here is not what it was: %s", d)
		}
	}
	files, err := c.store.Read(c.found.ByHand())
	if err != nil {
		return err
	}
	return c.place().PutBack(state, c.found.Folder, files)
}

// putBackServices restarts what ran before us, so that it reads what is there now,
// and stops what did not run.
func (c *Change) putBackServices(ctx context.Context, done *Uninstalled) error {
	var errs []error
	for _, s := range c.plan.services {
		if s.general() {
			errs = append(errs, c.putBackGeneral(ctx, s, done))
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, c.installer.outage())
		if c.ranBefore(s) {
			done.Restarted = append(done.Restarted, s.controller.Name())
			errs = append(errs, restartAlone(ctx, s))
		} else {
			done.Stopped = append(done.Stopped, s.controller.Name())
			errs = append(errs, s.controller.Stop(ctx))
		}
		cancel()
	}
	return errors.Join(errs...)
}

// firstMoments is how long a service is watched that people have set up: where it
// listens is theirs, and one that does not like its files ends soon after its start.
const firstMoments = 3 * time.Second

func restartAlone(ctx context.Context, s served) error {
	if err := s.controller.Restart(ctx); err != nil {
		return err
	}
	watched, cancel := context.WithTimeout(ctx, firstMoments)
	defer cancel()
	if s.address != "" && probe.Ready(watched, s.address, s.controller.Alive) == nil {
		return nil
	}
	for watched.Err() == nil && s.controller.Alive(ctx) == nil {
		select {
		case <-watched.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return s.controller.Alive(ctx)
}

// ranBefore reports that a service ran when we met it; of one that we never met
// nothing says that it did not.
func (c *Change) ranBefore(s served) bool {
	if c.found == nil {
		return true
	}
	at := slices.IndexFunc(c.found.Services, func(f record.Service) bool { return f.Profile == s.profile.Name })
	return at < 0 || c.found.Services[at].Ran
}

// removeStore removes every set, plain key and record, what was found here last:
// as long as that is there, the host is not yet as it was.
func (c *Change) removeStore(done *Uninstalled) error {
	s := c.store
	errs := []error{s.Dir.Remove(generation.CurrentName), s.Dir.Sync(), s.Prune(), s.RemoveRefused(), s.RemoveRun()}
	for _, name := range []string{record.JournalName, record.FoundName, reactivatedName} {
		errs = append(errs, s.Dir.Remove(name+".new"), s.Dir.Remove(name+".bad"))
	}
	errs = append(errs, s.Dir.Remove(record.JournalName), s.Dir.Remove(reactivatedName), s.Dir.Sync())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := errors.Join(c.leaveRoom(), record.Forget(s.Dir, record.FoundName)); err != nil {
		return err
	}
	return c.installer.removeState(done)
}

// leaveRoom removes the directory that the first installation made for the link.
func (c *Change) leaveRoom() error {
	if c.found == nil || !c.found.MadeRoom {
		return nil
	}
	parent, err := beneath.Open(c.installer.root(), filepath.Dir(c.set().parent()))
	if err != nil {
		return err
	}
	defer parent.Close()
	return errors.Join(parent.RemoveIfEmpty(filepath.Base(c.set().parent())), parent.Sync())
}

// removeState removes the folders of the state directory that are empty now, and
// the lock where nothing else is left that it could guard.
func (i *Installer) removeState(done *Uninstalled) error {
	state, err := beneath.Open(i.root(), i.stateDir())
	if err != nil {
		return err
	}
	defer state.Close()
	if err := state.RemoveIfEmpty(i.set().Name); err != nil {
		return err
	}
	names, err := state.Names()
	if err != nil {
		return err
	}
	if slices.Contains(names, i.set().Name) {
		done.warn("%s/%s is left: there is something in it that is not ours", i.stateDir(), i.set().Name)
	}
	if slices.ContainsFunc(names, func(name string) bool { return name != lockName && name != "state" }) {
		return state.Sync()
	}
	if err := errors.Join(state.Remove(lockName), state.Sync()); err != nil {
		return err
	}
	parent, err := beneath.Open(i.root(), filepath.Dir(i.stateDir()))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.RemoveIfEmpty(filepath.Base(i.stateDir()))
}
