// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"errors"
	"fmt"
	"regexp"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keypair"
)

// refusedName is a generation that was not served, kept to look at.
var refusedName = regexp.MustCompile(`^refused-[0-9]{6}$`)

func refusedNameOf(number int) string { return fmt.Sprintf("refused-%06d", number) }

// Refuse keeps the certificates of a generation under a name that is never current
// again, instead of the one that was refused before it.
func (s Store) Refuse(number int) error {
	dir, err := s.Dir.Sub(NameOf(number))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := errors.Join(withoutKeys(dir), s.removePlain(number)); err != nil {
		return err
	}
	return errors.Join(s.Dir.Rename(NameOf(number), refusedNameOf(number)), s.Dir.Sync(), s.PruneRefused())
}

// PruneRefused removes all refused sets but the last, and that one too where its
// removal had begun.
func (s Store) PruneRefused() error {
	refused, err := numbersIn(s.Dir, refusedName)
	errs := []error{err}
	for at, number := range refused {
		if at == len(refused)-1 && s.isWhole(refusedNameOf(number)) {
			break
		}
		errs = append(errs, s.Dir.RemoveFlat(refusedNameOf(number)))
	}
	return errors.Join(append(errs, s.Dir.Sync())...)
}

// isWhole reports that a set has its manifest.
func (s Store) isWhole(name string) bool {
	dir, err := s.Dir.Sub(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := dir.Stat(ManifestName)
	return err == nil && info.Kind == beneath.Plain
}

// RemoveRefused removes every set that was refused.
func (s Store) RemoveRefused() error {
	refused, err := numbersIn(s.Dir, refusedName)
	errs := []error{err}
	for _, number := range refused {
		errs = append(errs, s.Dir.RemoveFlat(refusedNameOf(number)))
	}
	return errors.Join(errs...)
}

// withoutKeys takes every file out of a folder that is not certificates and nothing
// else, but for the manifest: a set that was refused is kept to look at, and nobody
// needs its keys for that.
func withoutKeys(dir *beneath.Dir) error {
	names, err := dir.Names()
	errs := []error{err}
	for _, name := range names {
		if name != ManifestName && !onlyCertificates(dir, name) {
			errs = append(errs, dir.Remove(name))
		}
	}
	return errors.Join(append(errs, dir.Sync())...)
}

func onlyCertificates(dir *beneath.Dir, name string) bool {
	f, err := dir.Read(name, keypair.MaxFile)
	if err != nil {
		return false
	}
	found, err := keypair.ParseCertificates(f.Content)
	return err == nil && len(found) > 0
}
