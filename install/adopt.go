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
// none yet, and changes nothing else.
func (c *Change) copyFolder() ([]beneath.File, int, error) {
	folder, err := c.config.Sub(c.set().link())
	if err != nil {
		return nil, none, err
	}
	defer folder.Close()
	files, err := readPlain(folder)
	if err != nil {
		return nil, none, &remedy.Error{Err: fmt.Errorf("%s %w: %w", c.set().Folder, ErrNotAdoptable, err), Hint: c.set().tidyHint()}
	}
	for at := range files {
		if err := c.judgeFound(&files[at]); err != nil {
			return nil, none, remedy.Errorf(c.set().tidyHint(), "%s/%s %w: %w", c.set().Folder, files[at].Name, ErrNotAdoptable, err)
		}
	}
	number, err := c.store.next()
	if err != nil {
		return nil, none, err
	}
	return files, number, c.store.write(number, files)
}

// judgeFound accepts a file that people put there: owned by root or a service
// user, PEM throughout. Nobody but its owner may write the copy, and others may
// not read it when it holds a key.
func (c *Change) judgeFound(f *beneath.File) error {
	owners := []int{0}
	for _, m := range c.plan.members {
		owners = append(owners, m.owner.UID)
	}
	if known, err := c.installer.accounts().Find(keylimeUser); err == nil {
		owners = append(owners, known.UID)
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
		return c.config.Rename(c.set().parkedLink(), c.set().link())
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

// discard removes a folder that holds exactly what was copied; one that changed
// meanwhile is put back.
func (c *Change) discard(name string, copied []beneath.File, putBack func() error) error {
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

// holds reports whether a folder has exactly these files with these contents.
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
	return slices.EqualFunc(found, copied, func(a, b beneath.File) bool {
		return a.Name == b.Name && bytes.Equal(a.Content, b.Content)
	}), nil
}

func (c *Change) removeIfLink(name string) error {
	info, err := c.config.Stat(name)
	if err != nil || info.Kind != beneath.Link {
		return err
	}
	return c.config.Remove(name)
}
