// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/place"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
)

// ErrNotAdoptable means that the set's folder holds what we would not have put
// there, so it is left alone.
var ErrNotAdoptable = place.ErrNotAdoptable

// linkTarget is the text of our link.
func (i *Installer) linkTarget() string {
	return filepath.Join(i.stateDir(), i.set().Name, generation.CurrentName)
}

// place is where the services read this set.
func (c *Change) place() place.Place {
	return place.Place{Dir: c.config, Folder: c.set().Folder, Target: c.installer.linkTarget()}
}

// copyFolder copies the folder into a generation of its own, 0 where there is
// none yet, and changes nothing else. The record tells its modes and owners.
func (c *Change) copyFolder() ([]beneath.File, *record.Folder, error) {
	folder, err := c.config.Sub(c.set().link())
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close()
	files, err := generation.ReadPlain(folder)
	if err != nil {
		return nil, nil, &remedy.Error{Err: fmt.Errorf("%s %w: %w", c.set().Folder, ErrNotAdoptable, err), Hint: c.place().TidyHint()}
	}
	self, err := folder.Self()
	if err != nil {
		return nil, nil, err
	}
	described := record.Describe(record.None, self, files)
	for at := range files {
		if err := c.judgeFound(&files[at]); err != nil {
			return nil, nil, remedy.Errorf(c.place().TidyHint(), "%s/%s %w: %w", c.set().Folder, files[at].Name, ErrNotAdoptable, err)
		}
	}
	copied, again, err := c.copiedBefore(files)
	if err != nil {
		return nil, nil, err
	}
	if again != nil {
		if fileset.HasAll(copied, files) {
			return copied, again, nil
		}
		files, described = complete(files, described, copied, again)
	}
	if described.Generation, err = c.store.Next(); err != nil {
		return nil, nil, err
	}
	return files, described, c.store.Write(described.Generation, files)
}

// copiedBefore is the copy of an installation that was interrupted while it took
// the folder over: it counts where files may be missing from the folder by now, or
// where it is the same as the folder.
func (c *Change) copiedBefore(files []beneath.File) ([]beneath.File, *record.Folder, error) {
	number := c.found.ByHand()
	if number == record.None {
		return nil, nil, nil
	}
	there, err := c.store.Has(number)
	if err != nil || !there {
		return nil, nil, err
	}
	if _, damage, err := c.store.Inspect(number); err != nil || len(damage) > 0 {
		return nil, nil, err
	}
	copied, err := c.store.Read(number)
	if err != nil {
		return nil, nil, err
	}
	interrupted := c.earlier != nil && c.earlier.Adopted == number
	if !interrupted && (len(copied) != len(files) || !fileset.HasAll(copied, files)) {
		return nil, nil, nil
	}
	return copied, c.found.Folder, nil
}

// complete adds the files that are in the copy alone.
func complete(files []beneath.File, described *record.Folder, copied []beneath.File, again *record.Folder) ([]beneath.File, *record.Folder) {
	for _, kept := range copied {
		if _, there := fileset.Find(files, kept.Name); there {
			continue
		}
		files = append(files, kept)
		at := slices.IndexFunc(again.Files, func(f record.FolderFile) bool { return f.Name == kept.Name })
		if at >= 0 {
			described.Files = append(described.Files, again.Files[at])
		}
	}
	return files, described
}

// judgeFound accepts a file that people put there: owned by root or a service
// user, PEM throughout. Nobody but its owner may write the copy, and others may
// not read it when it holds a key.
func (c *Change) judgeFound(f *beneath.File) error {
	if strings.HasSuffix(f.Name, fileset.SealedSuffix) || strings.HasSuffix(f.Name, fileset.FormsSuffix) {
		return errors.New("a file of that name says where a key of ours is") // and theirs would go to the tmpfs
	}
	owners := []int{0}
	for _, m := range c.plan.members {
		owners = append(owners, m.owner.UID)
	}
	keylime, known, err := c.installer.keylimeAccount()
	if err != nil {
		return err
	}
	if known {
		owners = append(owners, keylime.UID)
	}
	if !slices.Contains(owners, f.UID) {
		return fmt.Errorf("it belongs to user %d", f.UID)
	}
	f.Mode &= 0o755
	blocks := 0
	for block, rest := pem.Decode(f.Content); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != "CERTIFICATE" {
			f.Mode &= 0o750
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	if blocks == 0 {
		return errors.New("it is not PEM")
	}
	return nil
}

// adopt makes the copy current and exchanges folder and link.
func (c *Change) adopt(number int, copied []beneath.File) error {
	if err := c.store.SwitchTo(number); err != nil {
		return err
	}
	return c.place().TakeOver(copied)
}

// takeOver adopts the folder; from then on its copy is what this change goes back
// to. Where that fails the folder is back, or the copy has what is missing in it.
func (c *Change) takeOver(number int, copied []beneath.File) error {
	proven := c.previous
	c.previous = number
	err := c.adopt(number, copied)
	if c.adopted = err == nil; c.adopted {
		return nil
	}
	err = errors.Join(err, c.place().Mend(copied, c.found.Folder))
	if c.torn = !c.place().Whole(copied); !c.torn {
		c.previous = proven
	}
	return err
}
