// SPDX-License-Identifier: Apache-2.0

// Package checkout copies the repository, for tests that make something of it a second
// time and elsewhere. It never writes into the checkout.
package checkout

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Copy copies what git knows or would take, as private files.
func Copy(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard") //nolint:noctx // ends by itself
	list.Dir = source
	names, err := list.Output()
	check(t, err)
	for name := range strings.SplitSeq(strings.Trim(string(names), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(source, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // deleted and not yet committed, or a link of this machine
		}
		check(t, err)
		content, err := os.ReadFile(filepath.Join(source, name))
		check(t, err)
		check(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o600)) //nolint:gosec // names are git's
	}
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
