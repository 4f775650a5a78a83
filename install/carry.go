// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
)

// ErrSpoiled means that a certificate cannot be taken over from the set before.
var ErrSpoiled = errors.New("cannot be taken over from the set before")

// Spoiled is a certificate that has to be issued anew, and why.
type Spoiled struct {
	Certificate string
	Err         error
}

// Spoiled names those of the items to be carried over that Install would refuse:
// somebody has changed a file of theirs, or their sealed key cannot be had. Keys
// that can are put where their services read them. Without a set of ours there is
// none.
func (i *Installer) Spoiled(ctx context.Context, items []Item) ([]Spoiled, error) {
	items = slices.DeleteFunc(slices.Clone(items), func(item Item) bool { return !item.carried() || item.rootOnly() })
	if len(items) == 0 {
		return nil, nil
	}
	lock, err := i.lock()
	if err != nil {
		return nil, i.explainDisk(err)
	}
	c := newChange(i, lock)
	found, err := c.spoiled(ctx, items)
	return found, errors.Join(i.explainDisk(err), c.release())
}

func (c *Change) spoiled(ctx context.Context, items []Item) ([]Spoiled, error) {
	files, err := c.look()
	if err != nil || !c.ours(c.was) {
		return nil, err
	}
	_, damage, err := c.store.Inspect(c.was)
	if err != nil {
		return nil, err
	}
	var all []Spoiled
	for _, item := range items {
		cause := spoilt(damage, item.Name)
		if sealed, is := fileset.Find(files, item.Name+fileset.SealedSuffix); cause == nil && is && !fileset.PlainFits(files, item.Name) {
			cause = c.store.UnsealOne(ctx, c.was, files, sealed, c.installer.Open)
		}
		if onDisk(cause) {
			return nil, cause
		}
		if cause != nil {
			all = append(all, Spoiled{Certificate: item.Name, Err: fmt.Errorf("certificate %s %w: %w", item.Name, ErrSpoiled, cause)})
		}
	}
	return all, nil
}

// spoilt is why a certificate is spoilt, nil when it is not.
func spoilt(damage []Damage, certificate string) error {
	at := slices.IndexFunc(damage, func(d Damage) bool { return d.Spoils(certificate) })
	if at < 0 {
		return nil
	}
	return errors.New(damage[at].String())
}

// fitToCarry refuses to carry what somebody has changed, opens sealed keys that are
// not there in plain, and gives every file the mode and the owner that we gave it.
func (c *Change) fitToCarry(ctx context.Context, before []beneath.File) ([]beneath.File, error) {
	if c.was == record.None {
		return before, nil
	}
	m, damage, err := c.store.Inspect(c.was)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		c.installer.log().Warn("somebody has changed the installed set", "generation", c.was, "file", d.File, "harm", string(d.Harm))
	}
	before = slices.Clone(before)
	for at := range before {
		if e := m.Entry(before[at].Name); e != nil {
			before[at].Mode, before[at].UID, before[at].GID = e.Mode, e.UID, e.GID
		}
	}
	for _, member := range c.plan.members {
		if member.fresh != nil || member.profile.RootOnly {
			continue
		}
		if err := c.fit(ctx, before, damage, member); err != nil {
			hint := "let it be issued anew: omen-agent renew --certificate " + member.item.Name
			return nil, remedy.Errorf(hint, "certificate %s %w: %w", member.item.Name, ErrSpoiled, err)
		}
	}
	return before, nil
}

// fit makes one certificate fit to be carried.
func (c *Change) fit(ctx context.Context, before []beneath.File, damage []Damage, m member) error {
	name := m.item.Name
	if err := spoilt(damage, name); err != nil {
		return err
	}
	for at := range before {
		f := &before[at]
		switch f.Name {
		case name + fileset.SealedSuffix:
			f.UID, f.GID = m.owner.UID, m.owner.GID
		case name + ".key":
			f.UID, f.GID = m.owner.UID, m.owner.GID
			if m.item.general() {
				f.Mode = m.keyMode()
			}
			if !fileset.IsSealed(before, f.Name) || fileset.PlainFits(before, name) {
				continue
			}
			sealed, _ := fileset.Find(before, name+fileset.SealedSuffix)
			key, err := fileset.Unseal(ctx, before, sealed, c.installer.Open)
			if err != nil {
				return err
			}
			f.Content = key
		}
	}
	return nil
}

// carry leaves out of the set before what is replaced and what is spoilt: see
// generation.Store.Read. What the key of a certificate comes back from goes with the key.
func (c *Change) carry(before, files []beneath.File) []beneath.File {
	return slices.DeleteFunc(slices.Clone(before), func(old beneath.File) bool {
		_, replaced := fileset.Find(files, old.Name)
		if name, sealed := strings.CutSuffix(old.Name, fileset.SealedSuffix); sealed {
			key, found := fileset.Find(before, name+".key")
			_, renewed := fileset.Find(files, name+".key")
			return replaced || renewed || !found || len(key.Content) == 0
		}
		return replaced || len(old.Content) == 0
	})
}
