// SPDX-License-Identifier: Apache-2.0

package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withoutOpenat2 does something in a thread for which a filter of system calls has no
// openat2, as systemd's RestrictSUIDSGID= has none.
func withoutOpenat2(t *testing.T, do func()) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with what it has lost
		err := filterOpenat2()
		if err == nil {
			do()
		}
		failed <- err
	}()
	must(t, <-failed)
}

func filterOpenat2() error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_OPENAT2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

// TestWithoutOpenat2: what is opened is as strict.
func TestWithoutOpenat2(t *testing.T) {
	path, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err, os.WriteFile(path+"/file", []byte("x"), 0o600), os.Mkdir(path+"/folder", 0o755),
		os.Symlink("file", path+"/file-link"), os.Symlink("folder", path+"/folder-link"), os.Symlink("/proc/self/root", path+"/magic"))
	withoutOpenat2(t, func() {
		dir, err := Open("/", path+"/folder-link/..") // the way down may have links
		if err != nil {
			t.Error(err)
			return
		}
		defer dir.Close()
		if file, err := dir.Read("file", 10); err != nil || string(file.Content) != "x" {
			t.Errorf("%q, %v", file.Content, err)
		}
		if names, err := dir.Names(); err != nil || len(names) != 5 {
			t.Errorf("%v, %v", names, err)
		}
		for _, name := range []string{"file-link", "magic"} {
			if _, err := dir.Read(name, 10); !errors.Is(err, ErrNotPlain) {
				t.Errorf("read %s: %v", name, err)
			}
		}
		for _, name := range []string{"folder-link", "magic"} {
			if _, err := dir.Sub(name); err == nil {
				t.Errorf("opened %s", name)
			}
		}
		if plain, err := OpenPlain(path + "/folder"); err != nil {
			t.Error(err)
		} else {
			plain.Close()
		}
		for _, name := range []string{"/folder-link", "/magic", "/file", "/absent"} {
			if _, err := OpenPlain(path + name); err == nil || errors.Is(err, unix.ENOSYS) {
				t.Errorf("opened %s plainly: %v", name, err)
			}
		}
		if _, err := Open(path, "folder"); !errors.Is(err, unix.ENOSYS) { // links could leave it
			t.Errorf("inside another root: %v", err)
		}
	})
}

// TestLease: who owns a file cannot have its opening go on for ever.
func TestLease(t *testing.T) {
	path := t.TempDir()
	must(t, os.WriteFile(path+"/file", []byte("x"), 0o600))
	held, err := os.Open(path + "/file")
	must(t, err)
	defer held.Close()
	if _, err := unix.FcntlInt(held.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(root)
	fd, err := Inside(root, path+"/file", unix.O_RDONLY|unix.O_NONBLOCK)
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d, %v", fd, err)
	}
}
