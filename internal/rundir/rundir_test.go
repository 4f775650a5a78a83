// SPDX-License-Identifier: Apache-2.0

package rundir

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "omen-rundir-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	root := memory(t)
	must(t, os.Mkdir(filepath.Join(root, "run"), 0o755), os.Mkdir(filepath.Join(root, "shared"), 0o755), os.Chmod(filepath.Join(root, "shared"), 0o1777),
		os.Mkdir(filepath.Join(root, "theirs"), 0o755), os.Chown(filepath.Join(root, "theirs"), 4711, 4711))
	for range 2 {
		dir, err := Open(root, "/run/omen-agent")
		must(t, err)
		info, err := dir.Self()
		must(t, err, dir.Close())
		if info.Mode != 0o711 || info.UID != os.Geteuid() {
			t.Errorf("%+v", info)
		}
	}
	for _, folder := range []string{"/shared", "/shared/x", "/theirs", "/theirs/x"} {
		if dir, err := Open(root, folder); !errors.Is(err, errOthers) {
			t.Errorf("%s: %v, %v", folder, dir, err)
		}
	}
	if _, err := Open(root, "/run/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("two levels: %v", err)
	}
}

// TestLook: it says what Open and WriteSecret would, and makes nothing.
func TestLook(t *testing.T) {
	root, disk := memory(t), "/var/tmp"
	must(t, os.Mkdir(filepath.Join(root, "run"), 0o755), os.Mkdir(filepath.Join(root, "shared"), 0o755), os.Chmod(filepath.Join(root, "shared"), 0o1777))
	if err := errors.Join(Look(root, "/run", true), Look(root, "/run/missing", true)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "run/missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
	for _, folder := range []string{"/shared", "/shared/x"} {
		if err := Look(root, folder, false); !errors.Is(err, errOthers) {
			t.Errorf("%s: %v", folder, err)
		}
	}
	if err := Look(root, "/run/a/b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("two levels: %v", err)
	}
	own, err := os.MkdirTemp(disk, "omen-rundir-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(own) })
	if err := Look("/", own, false); err != nil {
		t.Error(err)
	}
	if err := Look("/", own, true); !errors.Is(err, ErrNotMemory) {
		t.Errorf("a secret on a disk: %v", err)
	}
}

// What lies at the names that are used is not followed, and not written through.
func TestSecretIsNotWrittenThroughLinks(t *testing.T) {
	root := memory(t)
	must(t, os.Mkdir(filepath.Join(root, "run"), 0o755), os.WriteFile(filepath.Join(root, "other"), []byte("kept"), 0o644),
		os.Symlink("../other", filepath.Join(root, "run/token")), os.Symlink("../other", filepath.Join(root, "run/.token.new-"+strconv.Itoa(os.Getpid()))))
	must(t, WriteSecret(root, "/run/token", 4711, 4712, []byte("b.secret\n")))
	text, err := os.ReadFile(filepath.Join(root, "other"))
	if err != nil || string(text) != "kept" {
		t.Errorf("%q, %v", text, err)
	}
	info, err := os.Lstat(filepath.Join(root, "run/token"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	left, err := os.ReadDir(filepath.Join(root, "run"))
	if err != nil || len(left) != 1 || strings.HasPrefix(left[0].Name(), ".") {
		t.Errorf("%v, %v", left, err)
	}
}

// What another process is about to write stays; what one that ended left does not.
func TestSecretsOfTwoProcesses(t *testing.T) {
	root := memory(t)
	must(t, os.Mkdir(filepath.Join(root, "run"), 0o755))
	ended := exec.Command("true")
	must(t, ended.Run())
	theirs, left := ".token.new-"+strconv.Itoa(os.Getppid()), ".token.new-"+strconv.Itoa(ended.Process.Pid)
	for _, name := range []string{theirs, left, ".token.new-x"} {
		must(t, os.WriteFile(filepath.Join(root, "run", name), []byte("b."), 0o600))
	}
	must(t, WriteSecret(root, "/run/token", 0, 0, []byte("b.secret\n")))
	names := func() (names []string) {
		found, err := os.ReadDir(filepath.Join(root, "run"))
		must(t, err)
		for _, one := range found {
			names = append(names, one.Name())
		}
		return names
	}
	if want := []string{theirs, ".token.new-x", "token"}; !slices.Equal(names(), want) {
		t.Errorf("%v, not %v", names(), want)
	}
	must(t, RemoveSecret(root, "/run/token"), RemoveSecret(root, "/run/token"), RemoveSecret(root, "/run/none/token"))
	if slices.Contains(names(), "token") {
		t.Error("it is there")
	}
	must(t, WriteSecret(root, "/run/token", 0, 0, []byte("b.secret\n")), os.Chmod(filepath.Join(root, "run"), 0o777))
	if err := RemoveSecret(root, "/run/token"); !errors.Is(err, errOthers) {
		t.Errorf("in a folder of others: %v", err)
	}
}
