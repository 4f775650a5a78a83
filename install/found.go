// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
)

// ErrMoved means that a set is installed at another folder than is configured.
var ErrMoved = record.ErrMoved

// readFound returns the record, nil where nothing of ours was ever installed. What
// an older version of ours had installed has none: generation 0 is what people had.
func (c *Change) readFound() (*record.Found, error) {
	f := &record.Found{}
	if there, _, err := record.Recall(c.store.Dir, record.FoundName, f, c.installer.log()); there || err != nil {
		return f, err
	}
	if c.was == record.None {
		return nil, nil
	}
	f = &record.Found{Version: record.FoundVersion}
	files, err := c.store.Read(0)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	f.Folder = record.Describe(0, beneath.Info{Mode: 0o755}, files)
	return f, err
}

// ours reports that a generation is one that Install wrote.
func (c *Change) ours(number int) bool {
	return number > 0 && number != c.found.ByHand()
}

// recordFound completes the record before anything is switched: a component, an
// output or a service that we have not met before is written down as it is now.
func (c *Change) recordFound(ctx context.Context, folder *record.Folder) error {
	f := &record.Found{Version: record.FoundVersion, MadeRoom: c.madeRoom}
	if c.found != nil {
		*f = *c.found
		f.DropIns, f.Outputs, f.Services = slices.Clone(f.DropIns), slices.Clone(f.Outputs), slices.Clone(f.Services)
	}
	f.At = c.set().Folder
	if folder != nil {
		f.Folder = folder
	}
	if err := c.recordDropIns(f); err != nil {
		return err
	}
	for _, link := range c.installer.outputLinks(c.plan) {
		if !slices.Contains(f.Outputs, link) {
			f.Outputs = append(f.Outputs, link)
		}
	}
	for _, s := range c.plan.services {
		if !slices.ContainsFunc(f.Services, func(known record.Service) bool { return known.Profile == s.profile.Name }) {
			f.Services = append(f.Services, record.Service{Profile: s.profile.Name, Ran: s.controller.Alive(ctx) == nil})
		}
	}
	c.found = f
	return record.Write(c.store.Dir, record.FoundName, f)
}

// recordDropIns takes what stands under the name of our drop-ins into the record.
// As long as a set of ours is installed, what is there is ours, or was met before.
func (c *Change) recordDropIns(f *record.Found) error {
	for _, drop := range c.plan.dropIns {
		component := drop.Profile.Component
		_, known := f.DropIn(component)
		if known && c.ours(c.previous) {
			continue
		}
		file, err := c.dropInOfProven(component)
		if err != nil {
			return err
		}
		if file != nil && keylime.IsOurs(file.Content) {
			file = nil // an installation of ours is not known any more
		}
		f.DropIns = slices.DeleteFunc(f.DropIns, func(d record.DropIn) bool { return d.Component == component })
		f.DropIns = append(f.DropIns, record.DropIn{Component: component, File: file})
	}
	return nil
}

// dropInOfProven is the drop-in as it stood with the proven set.
func (c *Change) dropInOfProven(component string) (*keylime.Entry, error) {
	if c.earlier != nil {
		for _, w := range c.earlier.Written {
			for _, p := range w.Places {
				if w.Component == component && p.Folder != "" && p.Name == keylime.DropInFile {
					return p.Before, nil
				}
			}
		}
	}
	return readDropIn(c.config, component)
}

// restoreFound makes the record what it was before this change.
func (c *Change) restoreFound() error {
	c.found = c.before
	if c.before == nil {
		return record.Forget(c.store.Dir, record.FoundName)
	}
	return record.Write(c.store.Dir, record.FoundName, c.before)
}
