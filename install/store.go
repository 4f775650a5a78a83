// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
)

const (
	currentName = "current"     // the link in it
	waitingLink = "current.new" // becomes current by one rename
	wayMode     = 0o711         // folders on the way: to pass, not to list
	certMode    = 0o644
	keyMode     = 0o600
	maxNumber   = 999999
)

// generationName is the only shape of a folder that is ours.
var generationName = regexp.MustCompile(`^gen-[0-9]{6}$`)

// refusedName is a generation that was not served, kept to look at.
var refusedName = regexp.MustCompile(`^refused-[0-9]{6}$`)

// store is the folder of generations of one set.
type store struct {
	dir  *beneath.Dir
	root string
	set  Set
}

// none is the number of no generation.
const none = -1

func nameOf(number int) string { return fmt.Sprintf("gen-%06d", number) }

// openStore opens the folder of generations.
func openStore(root, stateDir string, set Set) (store, error) {
	state, err := beneath.Open(root, stateDir)
	if err != nil {
		return store{}, err
	}
	defer state.Close()
	dir, err := state.Sub(set.Name)
	return store{dir: dir, root: root, set: set}, err
}

func (s store) close() { s.dir.Close() }

// numbers lists the generations, sorted.
func (s store) numbers() ([]int, error) { return numbersIn(s.dir, generationName) }

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

// has reports that a generation is there.
func (s store) has(number int) (bool, error) {
	info, err := s.dir.Stat(nameOf(number))
	return info.Kind == beneath.Folder, err
}

// current returns the number that the link names, none without a link.
func (s store) current() (int, error) {
	target, err := s.dir.ReadLink(currentName)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	if !generationName.MatchString(target) {
		return none, fmt.Errorf("%s/%s points to %q, which is no generation", s.dir.Path(), currentName, target)
	}
	return strconv.Atoi(target[len("gen-"):])
}

// next returns a number above every generation there is.
func (s store) next() (int, error) {
	numbers, err := s.numbers()
	if err != nil {
		return 0, err
	}
	refused, err := numbersIn(s.dir, refusedName)
	if err != nil {
		return 0, err
	}
	if numbers = append(numbers, refused...); len(numbers) == 0 {
		return 0, nil
	}
	last := slices.Max(numbers)
	if last >= maxNumber {
		return none, fmt.Errorf("%s: generation numbers are used up", s.dir.Path())
	}
	return last + 1, nil
}

// write makes a generation: every file durable, then the manifest, then the
// folder, then the folder's entry. A set that could not be finished is removed.
func (s store) write(number int, files []beneath.File, drops ...keylime.DropIn) error {
	text, err := encodeRecord(newManifest(files, drops))
	if err != nil {
		return err
	}
	dir, err := s.dir.Make(nameOf(number), wayMode, 0, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, file := range files {
		if err := s.writeFile(dir, number, files, file); err != nil {
			return errors.Join(err, s.remove(number))
		}
	}
	if err := dir.Create(ownRecord(manifestName, text)); err != nil {
		return errors.Join(err, s.remove(number))
	}
	return errors.Join(dir.Sync(), s.dir.Sync())
}

// writeFile writes one file of a generation: a sealed key as a link to the tmpfs.
func (s store) writeFile(dir *beneath.Dir, number int, files []beneath.File, f beneath.File) error {
	if !isSealed(files, f.Name) {
		return dir.Create(f)
	}
	if err := s.writePlain(number, f); err != nil {
		return err
	}
	return dir.Symlink(s.runPath(number, f.Name), f.Name)
}

// remove takes a generation away, from the disk and from the tmpfs.
func (s store) remove(number int) error {
	return errors.Join(s.removePlain(number), s.dir.RemoveFlat(nameOf(number)))
}

// read returns every file of a generation. A key belongs to its service, which
// may have given it a second name or made it too large by now: such a file comes
// without content, so that it fits no certificate and stops nothing else.
func (s store) read(number int) ([]beneath.File, error) {
	dir, err := s.dir.Sub(nameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readEach(dir, func(name string) (beneath.File, error) {
		if target, err := dir.ReadLink(name); err == nil && target == s.runPath(number, name) {
			return s.readPlain(number, name)
		}
		file, err := dir.Read(name, maxFile)
		if errors.Is(err, beneath.ErrNotPlain) || errors.Is(err, beneath.ErrTooLarge) {
			return beneath.File{Name: name}, nil
		}
		return file, err
	})
}

func refusedNameOf(number int) string { return fmt.Sprintf("refused-%06d", number) }

// refuse keeps the certificates of a generation under a name that is never current
// again, instead of the one that was refused before it.
func (s store) refuse(number int) error {
	dir, err := s.dir.Sub(nameOf(number))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := errors.Join(withoutKeys(dir), s.removePlain(number)); err != nil {
		return err
	}
	return errors.Join(s.dir.Rename(nameOf(number), refusedNameOf(number)), s.dir.Sync(), s.pruneRefused())
}

// pruneRefused removes all refused sets but the last, and that one too where its
// removal had begun.
func (s store) pruneRefused() error {
	refused, err := numbersIn(s.dir, refusedName)
	errs := []error{err}
	for at, number := range refused {
		if at == len(refused)-1 && s.isWhole(refusedNameOf(number)) {
			break
		}
		errs = append(errs, s.dir.RemoveFlat(refusedNameOf(number)))
	}
	return errors.Join(append(errs, s.dir.Sync())...)
}

// isWhole reports that a set has its manifest.
func (s store) isWhole(name string) bool {
	dir, err := s.dir.Sub(name)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := dir.Stat(manifestName)
	return err == nil && info.Kind == beneath.Plain
}

func (s store) removeRefused() error {
	refused, err := numbersIn(s.dir, refusedName)
	errs := []error{err}
	for _, number := range refused {
		errs = append(errs, s.dir.RemoveFlat(refusedNameOf(number)))
	}
	return errors.Join(errs...)
}

// maxFiles bounds a set, its manifest not counted.
const maxFiles = 256

// readPlain reads a folder that holds small regular files and nothing else.
func readPlain(dir *beneath.Dir) ([]beneath.File, error) {
	return readEach(dir, func(name string) (beneath.File, error) { return dir.Read(name, maxFile) })
}

func readEach(dir *beneath.Dir, read func(name string) (beneath.File, error)) ([]beneath.File, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == manifestName })
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s: more than %d files", dir.Path(), maxFiles)
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

// switchTo makes a generation current by one rename; none takes the link away.
func (s store) switchTo(number int) error {
	if number == none {
		return errors.Join(s.dir.Remove(currentName), s.dir.Sync())
	}
	if err := s.dir.Remove(waitingLink); err != nil {
		return err
	}
	if err := s.dir.Symlink(nameOf(number), waitingLink); err != nil {
		return err
	}
	if err := s.dir.Rename(waitingLink, currentName); err != nil {
		return errors.Join(err, s.dir.Remove(waitingLink))
	}
	return s.dir.Sync()
}

// prune removes every generation but those to keep, from the disk and from the
// tmpfs, and a link left waiting.
func (s store) prune(keep ...int) error {
	numbers, err := s.numbers()
	if err != nil {
		return err
	}
	errs := []error{s.dir.Remove(waitingLink)}
	for _, number := range numbers {
		if !slices.Contains(keep, number) {
			errs = append(errs, s.remove(number))
		}
	}
	return errors.Join(append(errs, s.dir.Sync(), s.prunePlain(keep))...)
}

// before returns the newest generation older than number, or none.
func (s store) before(number int) (int, error) {
	numbers, err := s.numbers()
	if err != nil {
		return none, err
	}
	older := none
	for _, candidate := range numbers {
		if candidate < number {
			older = candidate
		}
	}
	return older, nil
}

// file picks one file out of a set.
func file(files []beneath.File, name string) (beneath.File, bool) {
	at := slices.IndexFunc(files, func(f beneath.File) bool { return f.Name == name })
	if at < 0 {
		return beneath.File{}, false
	}
	return files[at], true
}
