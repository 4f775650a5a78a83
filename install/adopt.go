// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// ErrNotAdoptable means that the set's folder holds what we would not have put
// there, so it is left alone.
var ErrNotAdoptable = errors.New("cannot be taken over")

func (s Set) tidyHint() string {
	return "move what does not belong there out of " + s.Folder + ", then run again"
}

// certsState is what stands at the set's folder.
type certsState int

const (
	certsAbsent certsState = iota
	certsLinked            // our link
	certsFolder            // a folder that people filled
)

// linkTarget is the text of our link.
func (i *Installer) linkTarget() string {
	return filepath.Join(i.stateDir(), i.set().Name, currentName)
}

func (c *Change) stateOfCerts() (certsState, error) {
	info, err := c.config.Stat(c.set().link())
	if err != nil {
		return certsAbsent, err
	}
	switch info.Kind {
	case beneath.Absent:
		return certsAbsent, nil
	case beneath.Folder:
		return certsFolder, nil
	case beneath.Link:
		target, err := c.config.ReadLink(c.set().link())
		if err != nil {
			return certsAbsent, err
		}
		if target == c.installer.linkTarget() {
			return certsLinked, nil
		}
		return certsAbsent, remedy.Errorf("remove the link, after copying what it leads to if that is still needed", "%s is a link to %s: %w", c.set().Folder, target, ErrNotAdoptable)
	}
	return certsAbsent, remedy.Errorf(c.set().tidyHint(), "%s is neither folder nor link: %w", c.set().Folder, ErrNotAdoptable)
}

// makeLink puts the link where nothing stands.
func (c *Change) makeLink() error {
	if err := c.config.Symlink(c.installer.linkTarget(), c.set().link()); err != nil {
		return err
	}
	c.linkMade = true
	return c.config.Sync()
}

// copyFolder copies the folder into a generation of its own, 0 where there is
// none yet, and changes nothing else. The record tells its modes and owners.
func (c *Change) copyFolder() ([]beneath.File, *foundFolder, error) {
	folder, err := c.config.Sub(c.set().link())
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close()
	files, err := readPlain(folder)
	if err != nil {
		return nil, nil, &remedy.Error{Err: fmt.Errorf("%s %w: %w", c.set().Folder, ErrNotAdoptable, err), Hint: c.set().tidyHint()}
	}
	self, err := folder.Self()
	if err != nil {
		return nil, nil, err
	}
	record := describeFolder(none, self, files)
	for at := range files {
		if err := c.judgeFound(&files[at]); err != nil {
			return nil, nil, remedy.Errorf(c.set().tidyHint(), "%s/%s %w: %w", c.set().Folder, files[at].Name, ErrNotAdoptable, err)
		}
	}
	copied, again, err := c.copiedBefore(files)
	if err != nil {
		return nil, nil, err
	}
	if again != nil {
		if whole(copied, files) {
			return copied, again, nil
		}
		files, record = complete(files, record, copied, again)
	}
	if record.Generation, err = c.store.next(); err != nil {
		return nil, nil, err
	}
	return files, record, c.store.write(record.Generation, files)
}

// copiedBefore is the copy of an installation that was interrupted while it took
// the folder over: it counts where files may be missing from the folder by now, or
// where it is the same as the folder.
func (c *Change) copiedBefore(files []beneath.File) ([]beneath.File, *foundFolder, error) {
	number := c.found.byHand()
	if number == none {
		return nil, nil, nil
	}
	there, err := c.store.has(number)
	if err != nil || !there {
		return nil, nil, err
	}
	if _, damage, err := c.store.inspect(number); err != nil || len(damage) > 0 {
		return nil, nil, err
	}
	copied, err := c.store.read(number)
	if err != nil {
		return nil, nil, err
	}
	interrupted := c.earlier != nil && c.earlier.Adopted == number
	if !interrupted && (len(copied) != len(files) || !whole(copied, files)) {
		return nil, nil, nil
	}
	return copied, c.found.Folder, nil
}

// whole reports that a copy has every one of the files, with the same content.
func whole(copied, files []beneath.File) bool {
	return !slices.ContainsFunc(files, func(f beneath.File) bool {
		kept, found := file(copied, f.Name)
		return !found || !bytes.Equal(kept.Content, f.Content)
	})
}

// complete adds the files that are in the copy alone.
func complete(files []beneath.File, record *foundFolder, copied []beneath.File, again *foundFolder) ([]beneath.File, *foundFolder) {
	for _, kept := range copied {
		if _, there := file(files, kept.Name); there {
			continue
		}
		files = append(files, kept)
		at := slices.IndexFunc(again.Files, func(f foundFile) bool { return f.Name == kept.Name })
		if at >= 0 {
			record.Files = append(record.Files, again.Files[at])
		}
	}
	return files, record
}

// judgeFound accepts a file that people put there: owned by root or a service
// user, PEM throughout. Nobody but its owner may write the copy, and others may
// not read it when it holds a key.
func (c *Change) judgeFound(f *beneath.File) error {
	if strings.HasSuffix(f.Name, sealedSuffix) || strings.HasSuffix(f.Name, formsSuffix) {
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

// takeOver adopts the folder; from then on its copy is what this change goes back
// to. Where that fails the folder is back, or the copy has what is missing in it.
func (c *Change) takeOver(number int, copied []beneath.File) error {
	proven := c.previous
	c.previous = number
	err := c.adopt(number, copied)
	if c.adopted = err == nil; c.adopted {
		return nil
	}
	err = errors.Join(err, c.mendFolder(copied))
	if c.torn = !c.folderWhole(copied); !c.torn {
		c.previous = proven
	}
	return err
}

// mendFolder writes files back that were removed from the folder, which is in its
// place still.
func (c *Change) mendFolder(copied []beneath.File) error {
	state, err := c.stateOfCerts()
	if err != nil || state != certsFolder {
		return err
	}
	folder, err := c.config.Sub(c.set().link())
	if err != nil {
		return err
	}
	defer folder.Close()
	var errs []error
	for _, f := range copied {
		if there, err := folder.Stat(f.Name); err != nil || there.Kind != beneath.Absent {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, folder.Create(c.found.Folder.asFound(f)))
	}
	return errors.Join(append(errs, folder.Sync())...)
}

// adopt makes the copy current and exchanges folder and link. The folder is
// removed once it is known to be what was copied.
func (c *Change) adopt(number int, copied []beneath.File) error {
	if err := c.store.switchTo(number); err != nil {
		return err
	}
	if err := c.config.Symlink(c.installer.linkTarget(), c.set().parkedLink()); err != nil {
		return err
	}
	err := c.config.Exchange(c.set().parkedLink(), c.set().link())
	switch {
	case err == nil:
		err = c.discard(c.set().parkedLink(), copied, func() error { return c.config.Exchange(c.set().parkedLink(), c.set().link()) })
	case beneath.CannotExchange(err):
		err = c.replace(copied)
	}
	if err != nil {
		return errors.Join(err, c.removeIfLink(c.set().parkedLink()))
	}
	return c.config.Sync()
}

// replace is for file systems without an exchange: two renames. Where even the
// folder cannot be moved (a lower layer of overlayfs) its copied files are
// removed first. For that moment nothing stands at the path; an installation
// that was interrupted there is mended by the next one.
func (c *Change) replace(copied []beneath.File) error {
	err := c.config.Rename(c.set().link(), c.set().parkedFolder())
	if beneath.CannotExchange(err) {
		if err := c.discard(c.set().link(), copied, nothing); err != nil {
			return err
		}
		return c.fillPlace()
	}
	if err != nil {
		return err
	}
	back := func() error { return c.config.Rename(c.set().parkedFolder(), c.set().link()) }
	if err := c.config.Rename(c.set().parkedLink(), c.set().link()); err != nil {
		return errors.Join(err, back())
	}
	return c.discard(c.set().parkedFolder(), copied, func() error {
		return errors.Join(c.config.Rename(c.set().link(), c.set().parkedLink()), back())
	})
}

func nothing() error { return nil }

// fillPlace puts the link where the folder stood, which is gone: by a new one where
// the parked one cannot be moved.
func (c *Change) fillPlace() error {
	err := c.config.Rename(c.set().parkedLink(), c.set().link())
	if err == nil {
		return nil
	}
	if again := c.config.Symlink(c.installer.linkTarget(), c.set().link()); again != nil {
		return errors.Join(err, again)
	}
	return c.config.Remove(c.set().parkedLink())
}

// discard removes a folder in which nothing is that was not copied; one that changed
// meanwhile is put back. What was renamed until here is durable before a file goes.
func (c *Change) discard(name string, copied []beneath.File, putBack func() error) error {
	if err := c.config.Sync(); err != nil {
		return errors.Join(err, putBack())
	}
	same, err := c.holds(name, copied)
	if err == nil && !same {
		err = remedy.Errorf("find what writes there (a timer of the manual set-up?), stop it, run again",
			"%s changed while it was taken over: %w", c.set().Folder, ErrNotAdoptable)
	}
	if err != nil {
		return errors.Join(err, putBack())
	}
	return c.config.RemoveFlat(name)
}

// holds reports whether a folder has none but these files with these contents.
func (c *Change) holds(name string, copied []beneath.File) (bool, error) {
	folder, err := c.config.Sub(name)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	found, err := readPlain(folder)
	if err != nil {
		return false, err
	}
	return whole(copied, found), nil
}

func (c *Change) removeIfLink(name string) error {
	info, err := c.config.Stat(name)
	if err != nil || info.Kind != beneath.Link {
		return err
	}
	return c.config.Remove(name)
}

// folderWhole reports that the folder is in its place with everything in it.
func (c *Change) folderWhole(copied []beneath.File) bool {
	folder, err := c.config.Sub(c.set().link())
	if err != nil {
		return false
	}
	defer folder.Close()
	files, err := readPlain(folder)
	return err == nil && whole(files, copied)
}
