// SPDX-License-Identifier: Apache-2.0

// Package cell runs a test in namespaces of its own: mounts, network and
// processes that nothing of the machine sees and that end with it. It is
// imported by tests only and needs root.
package cell

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

const inside = "OMEN_TEST_CELL"

// Enter runs the calling test again, alone, in new mount, network and process
// namespaces, and reports false with its outcome; inside, it reports true. Such
// tests run beside each other.
//
//	if !cell.Enter(t) {
//		return
//	}
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		prepare(t)
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	t.Parallel()
	// Pdeathsig comes with the end of the thread that started the cell (prctl(2)), and
	// the code under test ends threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	command.Env = append(os.Environ(), inside+"="+t.Name())
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	output, err := command.CombinedOutput()
	if err != nil || !bytes.Contains(output, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("inside: %v\n%s", err, output)
	}
	return false
}

// Main runs all tests of a package in a network of their own, so that no port is
// taken by anybody else. It is for TestMain.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		return m.Run()
	}
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), inside+"=network")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := command.Run(); err != nil {
		return 1
	}
	return 0
}

// Loopback makes 127.0.0.1 usable in a new network.
func Loopback(t testing.TB) { Run(t, "ip", "link", "set", "lo", "up") }

func prepare(t *testing.T) {
	t.Helper()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	Loopback(t)
}

// Mount mounts a file system until the test ends.
func Mount(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := syscall.Mount(source, target, kind, flags, options); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// Cover puts a writable layer over dir; what is written there is gone with the
// cell. The layer lies in scratch, which must not be an overlay itself.
func Cover(t *testing.T, dir, scratch string) {
	t.Helper()
	upper, work := scratch+"/upper", scratch+"/work"
	for _, folder := range []string{upper, work} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	Mount(t, "overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work)
}

// Run runs a command and returns what it prints.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, output)
	}
	return string(output)
}
