// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
)

// RunDir is where plain keys lie that are sealed on the disk. It is gone
// after a reboot.
const RunDir = "/run/omen-agent"

// ErrNotMemory means that plain keys would be written to a disk.
var ErrNotMemory = errors.New("not a file system in memory")

// openRun opens the folder of plain keys of one generation, made when missing.
func (s Store) openRun(number int) (*beneath.Dir, error) {
	dir, err := s.openRunSet()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return ownFolder(dir, NameOf(number))
}

// openRunSet opens the folder of this set's generations on the tmpfs.
func (s Store) openRunSet() (*beneath.Dir, error) {
	parent, err := beneath.Open(s.root, path.Dir(RunDir))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := held(parent); err != nil {
		return nil, err
	}
	run, err := ownFolder(parent, path.Base(RunDir))
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return ownFolder(run, s.set)
}

// InMemory says why the plain form of sealed keys cannot be kept on a host, nil where
// it can.
func InMemory(root string) error {
	parent, err := beneath.Open(root, path.Dir(RunDir))
	if err != nil {
		return err
	}
	defer parent.Close()
	return held(parent)
}

// held refuses a folder that is not in memory.
func held(dir *beneath.Dir) error {
	memory, err := dir.InMemory()
	if err == nil && !memory {
		err = remedy.Errorf("mount a tmpfs there, or keep keys in files: key = \"file\"", "%s is %w", dir.Path(), ErrNotMemory)
	}
	return err
}

// runPath is what the link of a sealed key says.
func (s Store) runPath(number int, name string) string {
	return path.Join(RunDir, s.set, NameOf(number), name)
}

// writePlain puts a key on the tmpfs, in one step.
func (s Store) writePlain(number int, key beneath.File) error {
	run, err := s.openRun(number)
	if err != nil {
		return err
	}
	defer run.Close()
	name := key.Name
	key.Name += ".new"
	if err := run.Remove(key.Name); err != nil {
		return err
	}
	if err := run.Create(key); err != nil {
		return err
	}
	return run.Rename(key.Name, name)
}

// readPlain reads a key from the tmpfs; one that is not there has no content.
func (s Store) readPlain(number int, name string) (beneath.File, error) {
	empty := beneath.File{Name: name}
	dir, err := beneath.Open(s.root, path.Dir(s.runPath(number, name)))
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	defer dir.Close()
	key, err := dir.Read(name, keypair.MaxFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, beneath.ErrNotPlain) || errors.Is(err, beneath.ErrTooLarge) {
		return empty, nil
	}
	return key, err
}

// removePlain takes the plain keys of a generation off the tmpfs.
func (s Store) removePlain(number int) error {
	return s.inRun(func(dir *beneath.Dir) error { return dir.RemoveFlat(NameOf(number)) })
}

// prunePlain takes the plain keys of all generations but those to keep off the
// tmpfs: also of one whose folder is gone from the disk already.
func (s Store) prunePlain(keep []int) error {
	return s.inRun(func(dir *beneath.Dir) error {
		numbers, err := numbersIn(dir, generationName)
		errs := []error{err}
		for _, number := range numbers {
			if !slices.Contains(keep, number) {
				errs = append(errs, dir.RemoveFlat(NameOf(number)))
			}
		}
		return errors.Join(errs...)
	})
}

// RemoveRun takes this set's plain keys off the tmpfs, and the folders for them.
func (s Store) RemoveRun() error {
	err := s.prunePlain(nil)
	parent, open := beneath.Open(s.root, path.Dir(RunDir))
	if open != nil {
		return errors.Join(err, beneath.IgnoreAbsent(open))
	}
	defer parent.Close()
	run, open := parent.Sub(path.Base(RunDir))
	if open != nil {
		return errors.Join(err, beneath.IgnoreAbsent(open))
	}
	defer run.Close()
	return errors.Join(err, run.RemoveIfEmpty(s.set), parent.RemoveIfEmpty(path.Base(RunDir)))
}

// inRun does something in this set's folder of plain keys, if there is one.
func (s Store) inRun(do func(dir *beneath.Dir) error) error {
	dir, err := beneath.Open(s.root, path.Join(RunDir, s.set))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

// Unseal opens every sealed key of a set whose plain form is not there, or is
// another key by now. It returns the names of the certificates.
func (s Store) Unseal(ctx context.Context, number int, files []beneath.File, open fileset.Opener) ([]string, error) {
	var opened []string
	var errs []error
	for _, sealed := range files {
		name, isSealed := strings.CutSuffix(sealed.Name, fileset.SealedSuffix)
		if !isSealed || fileset.PlainFits(files, name) && fileset.FormsFit(s.root, files, name) {
			continue
		}
		if err := s.UnsealOne(ctx, number, files, sealed, open); err != nil {
			errs = append(errs, fmt.Errorf("certificate %s: %w", name, err))
			continue
		}
		opened = append(opened, name)
	}
	return opened, errors.Join(errs...)
}

// UnsealOne puts one key where its service reads it, with the forms that hold it.
func (s Store) UnsealOne(ctx context.Context, number int, files []beneath.File, sealed beneath.File, open fileset.Opener) error {
	key, err := fileset.Unseal(ctx, files, sealed, open)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(sealed.Name, fileset.SealedSuffix)
	plain := beneath.File{Name: name + ".key", Mode: fileset.ModeOfKey(files, name), UID: sealed.UID, GID: sealed.GID, Content: key}
	if err := s.writePlain(number, plain); err != nil {
		return err
	}
	return s.writeForms(number, files, plain)
}

// writeForms puts the forms that hold a sealed key beside its plain form.
func (s Store) writeForms(number int, files []beneath.File, key beneath.File) error {
	made, err := fileset.KeyForms(s.root, files, key)
	for _, form := range made {
		if err := s.writePlain(number, form); err != nil {
			return err
		}
	}
	return err
}

// examineForm reports that a form on the tmpfs has what the set says; true for what is
// no form.
func (s Store) examineForm(number int, name string) (bool, error) {
	files, err := s.Read(number)
	if err != nil {
		return false, err
	}
	certificate, isForm := fileset.FormOf(files, name)
	return !isForm || fileset.FormsFit(s.root, files, certificate), nil
}
