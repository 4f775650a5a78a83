// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A State is a device that is switched off: everything swtpm remembers, in one
// directory.
type State struct {
	dir string
}

// OpenState takes the directory of a device that was manufactured earlier.
func OpenState(dir string) (*State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, permanentFile)); err != nil {
		return nil, fmt.Errorf("open TPM state: %w", err)
	}
	return &State{dir: dir}, nil
}

// permanentFile is where swtpm keeps all that outlives a power cut.
const permanentFile = "tpm2-00.permall"

// Dir is the directory, an absolute path.
func (s *State) Dir() string { return s.dir }

// Clone copies a device that is off into a new directory beside it. The copy
// has the same seeds, so the same endorsement keys and TPM ID: the same
// machine twice, not another one.
func (s *State) Clone() (*State, error) {
	dir, err := os.MkdirTemp(filepath.Dir(s.dir), "clone-")
	if err != nil {
		return nil, err
	}
	return s.cloneTo(dir)
}

// CloneTo is Clone into a directory of the caller's choice, created if need be.
func (s *State) CloneTo(dir string) (*State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return s.cloneTo(dir)
}

func (s *State) cloneTo(dir string) (*State, error) {
	files, err := readFiles(s.dir)
	if err != nil {
		return nil, err
	}
	// The lock file would be harmless, but it belongs to the other process.
	delete(files, ".lock")
	if err := files.write(dir); err != nil {
		return nil, err
	}
	return &State{dir: dir}, nil
}

// Remove deletes the device.
func (s *State) Remove() error { return os.RemoveAll(s.dir) }

// files is a flat directory in memory. A test binary keeps its devices so: it
// has no moment at which it could remove them from disk.
type files map[string][]byte

func readFiles(dir string) (files, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := files{}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		found[entry.Name()] = content
	}
	if len(found) == 0 {
		return nil, errors.New("read " + dir + ": no files")
	}
	return found, nil
}

func (f files) write(dir string) error {
	for name, content := range f {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
