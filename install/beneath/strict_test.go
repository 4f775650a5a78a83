// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// TestOpenPlain: a link is refused wherever on the way it is.
func TestOpenPlain(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/real/folder", 0o755), os.Symlink("real", root+"/way"), os.Symlink("folder", root+"/real/last"), os.WriteFile(root+"/file", nil, 0o600))
	dir, err := OpenPlain(root + "/real/folder")
	must(t, err)
	must(t, dir.Create(File{Name: "f", Mode: 0o644, UID: os.Getuid(), GID: os.Getgid()}), dir.Close())
	for _, path := range []string{"/way/folder", "/real/last", "/way/last"} {
		if dir, err := OpenPlain(root + path); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("%s: %v, %v", path, dir, err)
		}
	}
	for _, path := range []string{"/file", "/absent"} {
		if dir, err := OpenPlain(root + path); err == nil {
			t.Errorf("opened %s", dir.Path())
		}
	}
}
