// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// DefaultRunDir is where plain keys lie that are sealed on the disk. It is gone
// after a reboot.
const DefaultRunDir = "/run/omen-agent"

// sealedSuffix marks the file that a key comes back from. Where a set has
// NAME.sealed, its NAME.key is a link to the plain key on a tmpfs. The sealed file
// belongs to who owns the key.
const sealedSuffix = ".sealed"

// ErrNotMemory means that plain keys would be written to a disk.
var ErrNotMemory = errors.New("not a file system in memory")

// ErrNoPlainKey means that a sealed key has not been given out since the boot.
var ErrNoPlainKey = errors.New("the key is sealed")

// isSealed says whether a set keeps this file on a tmpfs.
func isSealed(files []beneath.File, name string) bool {
	base, isKey := strings.CutSuffix(name, ".key")
	if certificate, f, isForm := formIn(files, name); isForm {
		base, isKey = certificate, f.holdsKey()
	}
	if !isKey {
		return false
	}
	_, sealed := file(files, base+sealedSuffix)
	return sealed
}

// openRun opens the folder of plain keys of one generation, made when missing.
func (s store) openRun(number int) (*beneath.Dir, error) {
	dir, err := s.openRunSet()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return ownFolder(dir, nameOf(number))
}

// openRunSet opens the folder of this set's generations on the tmpfs.
func (s store) openRunSet() (*beneath.Dir, error) {
	parent, err := beneath.Open(s.root, path.Dir(DefaultRunDir))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if err := inMemory(parent); err != nil {
		return nil, err
	}
	run, err := ownFolder(parent, path.Base(DefaultRunDir))
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return ownFolder(run, s.set.Name)
}

func inMemory(dir *beneath.Dir) error {
	memory, err := dir.InMemory()
	if err == nil && !memory {
		err = remedy.Errorf("mount a tmpfs there, or keep keys in files: key = \"file\"", "%s is %w", dir.Path(), ErrNotMemory)
	}
	return err
}

// runPath is what the link of a sealed key says.
func (s store) runPath(number int, name string) string {
	return path.Join(DefaultRunDir, s.set.Name, nameOf(number), name)
}

// writePlain puts a key on the tmpfs, in one step.
func (s store) writePlain(number int, key beneath.File) error {
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
func (s store) readPlain(number int, name string) (beneath.File, error) {
	empty := beneath.File{Name: name}
	dir, err := beneath.Open(s.root, path.Dir(s.runPath(number, name)))
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	defer dir.Close()
	key, err := dir.Read(name, maxFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, beneath.ErrNotPlain) || errors.Is(err, beneath.ErrTooLarge) {
		return empty, nil
	}
	return key, err
}

// removePlain takes the plain keys of a generation off the tmpfs.
func (s store) removePlain(number int) error {
	return s.inRun(func(dir *beneath.Dir) error { return dir.RemoveFlat(nameOf(number)) })
}

// prunePlain takes the plain keys of all generations but those to keep off the
// tmpfs: also of one whose folder is gone from the disk already.
func (s store) prunePlain(keep []int) error {
	return s.inRun(func(dir *beneath.Dir) error {
		numbers, err := numbersIn(dir, generationName)
		errs := []error{err}
		for _, number := range numbers {
			if !slices.Contains(keep, number) {
				errs = append(errs, dir.RemoveFlat(nameOf(number)))
			}
		}
		return errors.Join(errs...)
	})
}

// removeRun takes this set's plain keys off the tmpfs, and the folders for them.
func (s store) removeRun() error {
	err := s.prunePlain(nil)
	parent, open := beneath.Open(s.root, path.Dir(DefaultRunDir))
	if open != nil {
		return errors.Join(err, ignoreAbsent(open))
	}
	defer parent.Close()
	run, open := parent.Sub(path.Base(DefaultRunDir))
	if open != nil {
		return errors.Join(err, ignoreAbsent(open))
	}
	defer run.Close()
	return errors.Join(err, ifEmpty(run, s.set.Name), ifEmpty(parent, path.Base(DefaultRunDir)))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inRun does something in this set's folder of plain keys, if there is one.
func (s store) inRun(do func(dir *beneath.Dir) error) error {
	dir, err := beneath.Open(s.root, path.Join(DefaultRunDir, s.set.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

// Opener gives the private key back that was sealed as text, for a leaf.
type Opener func(ctx context.Context, text []byte, leaf *x509.Certificate) (KeyPEM, error)

// Unseal puts the plain keys of the current set where its services read them, as
// far as they are not there. Each is checked against this set's leaf and its dates
// before it is written. It returns the names of the certificates whose keys were
// opened; an error is joined of all that could not be.
func (i *Installer) Unseal(ctx context.Context, open Opener) (opened []string, err error) {
	lock, err := i.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s, err := openStore(i.root(), i.stateDir(), i.set())
	if err != nil {
		return nil, err
	}
	defer s.close()
	number, err := s.current()
	if err != nil || number == none {
		return nil, errors.Join(err, ErrNotInstalled)
	}
	files, err := s.read(number)
	if err != nil {
		return nil, err
	}
	return s.unsealAll(ctx, number, files, open)
}

// unsealAll opens every sealed key of a set whose plain form is not there, or is
// another key by now. It returns the names of the certificates.
func (s store) unsealAll(ctx context.Context, number int, files []beneath.File, open Opener) ([]string, error) {
	var opened []string
	var errs []error
	for _, sealed := range files {
		name, isSealed := strings.CutSuffix(sealed.Name, sealedSuffix)
		if !isSealed || plainFits(files, name) && formsFit(s.root, files, name) {
			continue
		}
		if err := s.unseal(ctx, number, files, sealed, open); err != nil {
			errs = append(errs, fmt.Errorf("certificate %s: %w", name, err))
			continue
		}
		opened = append(opened, name)
	}
	return opened, errors.Join(errs...)
}

// plainFits reports that the plain key of a certificate is there and is its key.
func plainFits(files []beneath.File, name string) bool {
	certificate, _ := file(files, name+".crt")
	key, _ := file(files, name+".key")
	if len(key.Content) == 0 {
		return false
	}
	_, err := parsePair(certificate.Content, key.Content)
	return err == nil
}

// openSealed opens one sealed key, and judges certificate and key.
func openSealed(ctx context.Context, files []beneath.File, sealed beneath.File, open Opener) (KeyPEM, error) {
	certificate, _ := file(files, strings.TrimSuffix(sealed.Name, sealedSuffix)+".crt")
	chain, err := parseCertificates(certificate.Content)
	if err == nil && len(chain) == 0 {
		err = errors.New("no certificate beside the sealed key")
	}
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.After(chain[0].NotAfter) {
		return nil, fmt.Errorf("its certificate expired %s", chain[0].NotAfter.Format(time.RFC3339))
	}
	if open == nil {
		return nil, remedy.Errorf("omen-agent unseal puts it where the service reads it", "%w", ErrNoPlainKey)
	}
	key, err := open(ctx, sealed.Content, chain[0])
	if err != nil {
		return nil, err
	}
	_, err = parsePair(certificate.Content, key)
	return key, err
}

func (s store) unseal(ctx context.Context, number int, files []beneath.File, sealed beneath.File, open Opener) error {
	key, err := openSealed(ctx, files, sealed, open)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(sealed.Name, sealedSuffix)
	plain := beneath.File{Name: name + ".key", Mode: plainMode(files, name), UID: sealed.UID, GID: sealed.GID, Content: key}
	if err := s.writePlain(number, plain); err != nil {
		return err
	}
	return s.writeForms(number, files, plain)
}

// sealedMode: the owner of the key may read what it comes back from, which tells
// nothing to whoever is not this TPM.
const sealedMode = 0o400

func sealedFile(m member) beneath.File {
	return beneath.File{Name: m.item.Name + sealedSuffix, Mode: sealedMode, UID: m.owner.UID, GID: m.owner.GID, Content: m.item.Sealed}
}
