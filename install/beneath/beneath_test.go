// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	dir, err := Open(path, "/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestNamesThatAreNotOneComponent(t *testing.T) {
	dir, _ := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "/etc", "a\x00b", "../x"} {
		_, errSub := dir.Sub(name)
		_, errRead := dir.Read(name, 1)
		_, errStat := dir.Stat(name)
		for what, err := range map[string]error{
			"sub": errSub, "read": errRead, "stat": errStat, "create": dir.Create(File{Name: name}), "remove": dir.Remove(name),
			"symlink": dir.Symlink("x", name), "rename": dir.Rename("a", name), "from": dir.Rename(name, "a"),
		} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir, path := open(t)
	must(t, os.WriteFile(path+"/secret", []byte("x"), 0o600), os.Mkdir(path+"/folder", 0o755),
		os.Symlink("secret", path+"/file-link"), os.Symlink("folder", path+"/folder-link"), os.Symlink("/proc/self/root", path+"/magic"),
		os.Link(path+"/secret", path+"/second-name"), syscall.Mkfifo(path+"/pipe", 0o600))
	for _, name := range []string{"file-link", "second-name", "secret", "pipe", "folder"} {
		if _, err := dir.Read(name, 100); err == nil {
			t.Errorf("read %s", name)
		}
	}
	for _, name := range []string{"folder-link", "magic"} {
		if _, err := dir.Sub(name); err == nil {
			t.Errorf("opened %s", name)
		}
	}
	if err := dir.Create(File{Name: "file-link"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created through a link: %v", err)
	}
	must(t, dir.Remove("file-link"))
	if _, err := os.Stat(path + "/secret"); err != nil {
		t.Error(err)
	}
}

func TestFileHasItsModeWhateverTheUmask(t *testing.T) {
	dir, path := open(t)
	old := syscall.Umask(0o777)
	defer syscall.Umask(old)
	must(t, dir.Create(File{Name: "f", Mode: 0o644, UID: os.Getuid(), GID: os.Getgid(), Content: []byte("abc")}))
	info, err := os.Stat(path + "/f")
	if err != nil || info.Mode() != 0o644 || info.Size() != 3 {
		t.Errorf("%v, %v", info, err)
	}
	sub, err := dir.Make("d", 0o711, os.Getuid(), os.Getgid())
	must(t, err)
	defer sub.Close()
	if self, err := sub.Self(); err != nil || self.Mode != 0o711 || self.Kind != Folder {
		t.Errorf("%+v, %v", self, err)
	}
}

func TestUnfinishedFileIsRemoved(t *testing.T) {
	dir, path := open(t)
	limit := syscall.Rlimit{}
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	signal.Ignore(syscall.SIGXFSZ)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 2, Max: limit.Max}))
	err := dir.Create(File{Name: "f", Mode: 0o600, UID: os.Getuid(), GID: os.Getgid(), Content: []byte("abc")})
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(path + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSizeLimit(t *testing.T) {
	dir, path := open(t)
	must(t, os.WriteFile(path+"/f", make([]byte, 10), 0o600))
	if _, err := dir.Read("f", 10); err != nil {
		t.Error(err)
	}
	if _, err := dir.Read("f", 9); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestExchangeAndRemoveFlat(t *testing.T) {
	dir, path := open(t)
	must(t, os.MkdirAll(path+"/folder/deep", 0o755), os.WriteFile(path+"/folder/f", nil, 0o600), os.Symlink("x", path+"/link"))
	must(t, dir.Exchange("folder", "link"))
	if target, err := dir.ReadLink("folder"); err != nil || target != "x" {
		t.Errorf("%q, %v", target, err)
	}
	if err := dir.RemoveFlat("link"); err == nil {
		t.Error("removed a folder with a folder in it")
	}
	must(t, os.Remove(path+"/link/deep"), dir.RemoveFlat("link"), dir.RemoveFlat("link"))
	if names, err := dir.Names(); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestOpenStaysInItsRoot(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/srv/state", 0o755), os.Mkdir(root+"/var", 0o755), os.Symlink("/srv", root+"/var/lib"), os.Symlink("../../../../../../etc", root+"/out"))
	dir, err := Open(root, "/var/lib/state")
	must(t, err)
	dir.Close()
	if dir, err := Open(root, "/out/ssl"); err == nil {
		t.Errorf("opened %s", dir.Path())
	}
}
