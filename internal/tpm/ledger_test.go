// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

// listening is a socket's path with nobody who answers.
func listening(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "tpm")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return socket
}

// inTime fails the test where act waits for ever.
func inTime(t *testing.T, act func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { act(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
}

func TestLedgerIsKept(t *testing.T) {
	socket := listening(t)
	if err := os.WriteFile(lockPath(socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, left := openLedger("unix:" + socket)
	if len(left) != 0 {
		t.Errorf("%x on a new list", left)
	}
	l.handles = []tpm2.TPMHandle{0x80000000, 0x02000001}
	l.write()
	if _, left = openLedger("unix:" + socket); !slices.Equal(left, l.handles) {
		t.Errorf("%x, not %x", left, l.handles)
	}
	l.settle(l.handles)
	if _, left = openLedger("unix:" + socket); len(left) != 0 {
		t.Errorf("%x are still on the list", left)
	}
}

// Whoever may write the socket's folder may put a pipe there: nobody is waited for,
// also not by a pipe that this process holds open itself, as the lock does.
func TestLedgerThatIsAPipe(t *testing.T) {
	socket := listening(t)
	if err := unix.Mkfifo(lockPath(socket), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() {
		inTime(t, func() {
			l, left := openLedger("unix:" + socket)
			if len(left) != 0 {
				t.Errorf("%x from a pipe", left)
			}
			l.handles = []tpm2.TPMHandle{0x80000000}
			l.write()
		})
	}
	check()
	held, err := os.OpenFile(lockPath(socket), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	check()
	if err := held.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := held.Read(make([]byte, 1)); n != 0 {
		t.Errorf("the list was written into a pipe (%v)", err)
	}
}

// Nor is another file of root's written by a second name of it.
func TestLedgerThatIsAnotherFile(t *testing.T) {
	for name, bend := range map[string]func(old, new string) error{"hard link": os.Link, "link": os.Symlink} {
		socket := listening(t)
		other := socket + ".other"
		if err := os.WriteFile(other, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := bend(other, lockPath(socket)); err != nil {
			t.Fatal(err)
		}
		l, _ := openLedger("unix:" + socket)
		l.handles = []tpm2.TPMHandle{0x80000000}
		l.write()
		if text, err := os.ReadFile(other); err != nil || string(text) != "text" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
