// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
)

// Names and modes in the folder of generations.
const (
	CurrentName = "current"     // the link in it
	waitingLink = "current.new" // becomes current by one rename
	wayMode     = 0o711         // folders on the way: to pass, not to list
)

// generationName is the only shape of a folder that is ours.
var generationName = regexp.MustCompile(`^gen-[0-9]{6}$`)

// Store is the folder of generations of one set.
type Store struct {
	Dir  *beneath.Dir
	root string
	set  string // its name
}

// NameOf is the name of a generation's folder.
func NameOf(number int) string { return fmt.Sprintf("gen-%06d", number) }

// Open opens the folder of generations.
func Open(root, stateDir, set string) (Store, error) {
	state, err := beneath.Open(root, stateDir)
	if err != nil {
		return Store{}, err
	}
	defer state.Close()
	dir, err := state.Sub(set)
	return Store{Dir: dir, root: root, set: set}, err
}

// Close closes the folder; nothing in it changes.
func (s Store) Close() { s.Dir.Close() }

// Numbers lists the generations, sorted.
func (s Store) Numbers() ([]int, error) { return numbersIn(s.Dir, generationName) }

// numbersIn lists the numbers behind the dash of all names of a shape, sorted.
func numbersIn(dir *beneath.Dir, shape *regexp.Regexp) ([]int, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, name := range names {
		if shape.MatchString(name) {
			number, err := strconv.Atoi(name[len(name)-6:])
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

// Has reports that a generation is there.
func (s Store) Has(number int) (bool, error) {
	info, err := s.Dir.Stat(NameOf(number))
	return info.Kind == beneath.Folder, err
}

// Current returns the number that the link names, none without a link.
func (s Store) Current() (int, error) {
	target, err := s.Dir.ReadLink(CurrentName)
	if errors.Is(err, fs.ErrNotExist) {
		return record.None, nil
	}
	if err != nil {
		return record.None, err
	}
	if !generationName.MatchString(target) {
		return record.None, fmt.Errorf("%s/%s points to %q, which is no generation", s.Dir.Path(), CurrentName, target)
	}
	return strconv.Atoi(target[len("gen-"):])
}

// Next returns a number above every generation there is.
func (s Store) Next() (int, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return 0, err
	}
	refused, err := numbersIn(s.Dir, refusedName)
	if err != nil {
		return 0, err
	}
	if numbers = append(numbers, refused...); len(numbers) == 0 {
		return 0, nil
	}
	last := slices.Max(numbers)
	if last >= record.MaxNumber {
		return record.None, fmt.Errorf("%s: generation numbers are used up", s.Dir.Path())
	}
	return last + 1, nil
}

// Write makes a generation: every file durable, then the manifest, then the
// folder, then the folder's entry. A set that could not be finished is removed.
func (s Store) Write(number int, files []beneath.File, drops ...keylime.DropIn) error {
	text, err := record.Encode(newManifest(files, drops))
	if err != nil {
		return err
	}
	dir, err := s.Dir.Make(NameOf(number), wayMode, 0, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, file := range files {
		if err := s.writeFile(dir, number, files, file); err != nil {
			return errors.Join(err, s.Remove(number))
		}
	}
	if err := dir.Create(record.File(ManifestName, text)); err != nil {
		return errors.Join(err, s.Remove(number))
	}
	return errors.Join(dir.Sync(), s.Dir.Sync())
}

// writeFile writes one file of a generation: a sealed key as a link to the tmpfs.
func (s Store) writeFile(dir *beneath.Dir, number int, files []beneath.File, f beneath.File) error {
	if !fileset.IsSealed(files, f.Name) {
		return dir.Create(f)
	}
	if err := s.writePlain(number, f); err != nil {
		return err
	}
	return dir.Symlink(s.runPath(number, f.Name), f.Name)
}

// Remove takes a generation away, from the disk and from the tmpfs.
func (s Store) Remove(number int) error {
	return errors.Join(s.removePlain(number), s.Dir.RemoveFlat(NameOf(number)))
}

// Read returns every file of a generation. A key belongs to its service, which
// may have given it a second name or made it too large by now: such a file comes
// without content, so that it fits no certificate and stops nothing else.
func (s Store) Read(number int) ([]beneath.File, error) {
	dir, err := s.Dir.Sub(NameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readEach(dir, func(name string) (beneath.File, error) {
		if target, err := dir.ReadLink(name); err == nil && target == s.runPath(number, name) {
			return s.readPlain(number, name)
		}
		file, err := dir.Read(name, keypair.MaxFile)
		if errors.Is(err, beneath.ErrNotPlain) || errors.Is(err, beneath.ErrTooLarge) {
			return beneath.File{Name: name}, nil
		}
		return file, err
	})
}

// ReadPlain reads a folder that holds small regular files and nothing else.
func ReadPlain(dir *beneath.Dir) ([]beneath.File, error) {
	return readEach(dir, func(name string) (beneath.File, error) { return dir.Read(name, keypair.MaxFile) })
}

func readEach(dir *beneath.Dir, read func(name string) (beneath.File, error)) ([]beneath.File, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == ManifestName })
	if len(names) > record.MaxFiles {
		return nil, fmt.Errorf("%s: more than %d files", dir.Path(), record.MaxFiles)
	}
	files := make([]beneath.File, 0, len(names))
	for _, name := range names {
		file, err := read(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// SwitchTo makes a generation current by one rename; none takes the link away.
func (s Store) SwitchTo(number int) error {
	if number == record.None {
		return errors.Join(s.Dir.Remove(CurrentName), s.Dir.Sync())
	}
	if err := s.Dir.Remove(waitingLink); err != nil {
		return err
	}
	if err := s.Dir.Symlink(NameOf(number), waitingLink); err != nil {
		return err
	}
	if err := s.Dir.Rename(waitingLink, CurrentName); err != nil {
		return errors.Join(err, s.Dir.Remove(waitingLink))
	}
	return s.Dir.Sync()
}

// Prune removes every generation but those to keep, from the disk and from the
// tmpfs, and a link left waiting.
func (s Store) Prune(keep ...int) error {
	numbers, err := s.Numbers()
	if err != nil {
		return err
	}
	errs := []error{s.Dir.Remove(waitingLink)}
	for _, number := range numbers {
		if !slices.Contains(keep, number) {
			errs = append(errs, s.Remove(number))
		}
	}
	return errors.Join(append(errs, s.Dir.Sync(), s.prunePlain(keep))...)
}

// Before returns the newest generation older than number, or none.
func (s Store) Before(number int) (int, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return record.None, err
	}
	older := record.None
	for _, candidate := range numbers {
		if candidate < number {
			older = candidate
		}
	}
	return older, nil
}
