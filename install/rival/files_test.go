// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open opens the files below root for a test.
func open(t *testing.T, root string) *files {
	t.Helper()
	f, err := openFiles(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// Of what the kernel makes up nothing is read: some of it has no end, some waits, and
// reading can take messages away from others.
func TestKernelFiles(t *testing.T) {
	f := open(t, "/")
	link := filepath.Join(t.TempDir(), "messages")
	if err := os.Symlink("/proc/kmsg", link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"/proc/kmsg", link, "/proc/version", "/proc/1/environ", "/proc/self/mounts", "/proc/sys/kernel/ostype",
		"/sys/kernel/uevent_seqnum", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs",
		"/sys/kernel/tracing/trace_pipe", "/sys/kernel/debug/tracing/trace_pipe", "/sys/kernel/security/lsm",
	} {
		read := make(chan *text, 1)
		go func() { read <- f.read(name) }()
		select {
		case got := <-read:
			if got != nil {
				t.Errorf("%s is read: %.20q", name, got.content)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the search hangs", name)
		}
	}
	if len(f.errs) > 0 {
		t.Errorf("told as errors: %v", f.errs)
	}
}

// Files in memory are files as those on a disk are.
func TestMemoryFiles(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "omen-rival-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "renew")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := open(t, "/").read(name); got == nil || got.content != "#!/bin/sh\n" || !got.executable {
		t.Errorf("got %+v", got)
	}
}

// Who holds a lease on his file does not make others wait, and the search says so.
func TestLeasedFile(t *testing.T) {
	file, err := os.CreateTemp("/dev/shm", "omen-rival-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	f := open(t, "/")
	begin := time.Now()
	if got := f.read(file.Name()); got != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("got %+v after %v", got, time.Since(begin))
	}
	if err := errors.Join(f.errs...); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("not told: %v", err)
	}
}

// What was read already is not judged once a search has ended.
func TestJudgeNothingAfterTheEnd(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "renew"), []byte("cp new /certs/\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ended := range []bool{false, true} {
		ctx, end := context.WithCancel(t.Context())
		l, err := newLook(ctx, Search{Root: root, Folders: []string{"/certs"}})
		if err != nil {
			t.Fatal(err)
		}
		l.files.read("/renew")
		if ended {
			end()
		}
		if e := l.script("/renew", 1); (e.strength == nothing) != ended {
			t.Errorf("ended %v: %+v", ended, e)
		}
		end()
		l.files.close()
	}
}

// What is not there yet is not waited for.
func TestNothingToReadYet(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	if _, err := unix.Write(ends[1], []byte("first")); err != nil {
		t.Fatal(err)
	}
	if got, err := readText(reader{t.Context(), ends[0]}, maxFile); err != nil || string(got) != "first" {
		t.Errorf("got %q, %v", got, err)
	}
}
