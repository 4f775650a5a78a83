// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
)

// fill leaves a file system without room.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte("x"), 4096)
	for err == nil {
		_, err = file.Write(block)
	}
	file.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newHostIn(t, scratch(t))
	h.mkdir("var/lib/omen-agent")
	cell.Mount(t, "tmpfs", h.path("var/lib/omen-agent"), "tmpfs", 0, "mode=0711,size=256k")
	h.must(h.renew(h.all()...))
	h.byHandAgain()
	before, verifier := h.snapshot("etc"), h.servedSerial(keylime.Verifier)
	fill(t, h.path("var/lib/omen-agent/filler"))

	err := h.renew(h.all()...)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(remedy.Of(err), "free some space") {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	if h.servedSerial(keylime.Verifier) != verifier || h.installedSerial("verifier") != verifier {
		t.Error("the old certificate is not served any more")
	}
	h.must(os.Remove(h.path("var/lib/omen-agent/filler")))
	h.must(h.renew(h.all()...))
	if h.servedSerial(keylime.Verifier) == verifier {
		t.Error("not renewed when there is room again")
	}
}

// byHandAgain puts a folder back in the link's place, so that an adoption is
// among what a full disk interrupts.
func (h *host) byHandAgain() {
	h.must(os.Remove(h.path("etc/keylime/certs")))
	h.byHand()
}

func TestDiskReadOnly(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newHostIn(t, scratch(t))
	h.must(h.renew(h.all()...))
	verifier := h.servedSerial(keylime.Verifier)
	for _, dir := range []string{"var/lib/omen-agent", "etc/keylime"} {
		path := h.path(dir)
		h.must(syscall.Mount(path, path, "", syscall.MS_BIND, ""))
		h.must(syscall.Mount("", path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		items := h.all()
		items[0].Name = "verifier2" // so that the drop-ins change too
		err := h.renew(items...)
		if !errors.Is(err, syscall.EROFS) || remedy.Of(err) == "" {
			t.Fatalf("%s: got %v", dir, err)
		}
		t.Log(err)
		h.must(syscall.Unmount(path, syscall.MNT_DETACH))
		if got := h.installedSerial("verifier"); got != verifier || h.servedSerial(keylime.Verifier) != verifier {
			t.Errorf("%s: the old certificate is not in place: %s", dir, got)
		}
	}
	h.must(h.renew(h.all()...))
}

// TestNoReaderSeesAMixture loads the pair through the link, as a service that
// starts would, while the set changes a thousand times.
func TestNoReaderSeesAMixture(t *testing.T) {
	h := newHost(t)
	h.must(generation.Make(h.root, DefaultStateDir, KeylimeSet.Name))
	s, err := generation.Open(h.root, DefaultStateDir, KeylimeSet.Name)
	h.must(err)
	defer s.Close()
	var items []Item
	for range 8 {
		items = append(items, h.item("tenant", keylime.Tenant))
	}
	switched := func(number int) {
		item := items[number%len(items)]
		h.must(s.Write(number, []beneath.File{
			{Name: "tenant.crt", Mode: 0o644, Content: item.Chain}, {Name: "tenant.key", Mode: fileset.KeyMode, Content: item.Key},
		}))
		h.must(s.SwitchTo(number))
		h.must(s.Prune(number, number-1))
	}
	switched(1)
	var stop atomic.Bool
	var reads atomic.Int64
	result := make(chan error, 1)
	go func() {
		for !stop.Load() {
			if err := loadOnce(h.path(certs)); err != nil && !errors.Is(err, os.ErrNotExist) {
				result <- err
				return
			}
			reads.Add(1)
		}
		result <- nil
	}()
	for number := 2; number <= 1001 || reads.Load() < 200 && number < 20000; number++ {
		switched(number)
	}
	stop.Store(true)
	if err := <-result; err != nil {
		t.Errorf("after %d reads: %v", reads.Load(), err)
	}
	if reads.Load() < 200 {
		t.Errorf("only %d reads", reads.Load())
	}
}

// loadOnce opens the folder and reads both files of it.
func loadOnce(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	var texts [2][]byte
	for at, name := range []string{"tenant.crt", "tenant.key"} {
		file, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		opened := os.NewFile(uintptr(file), name)
		texts[at] = make([]byte, keypair.MaxFile)
		size, err := opened.Read(texts[at])
		opened.Close()
		if err != nil {
			return err
		}
		texts[at] = texts[at][:size]
	}
	_, err = tls.X509KeyPair(texts[0], texts[1])
	return err
}

func TestUnusualGenerationNames(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	for _, name := range []string{"gen-1", "gen-0000007", "gen-00000a", "keep"} {
		h.write("var/lib/omen-agent/keylime/"+name+"/file", "x", 0o600)
	}
	h.must(h.renew(h.all()...))
	for _, name := range []string{"gen-1", "gen-0000007", "gen-00000a", "keep"} {
		if _, err := os.Stat(h.path("var/lib/omen-agent/keylime/" + name + "/file")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.mkdir("var/lib/omen-agent/keylime/gen-999999")
	h.must(os.Remove(h.path(certs)))
	h.must(os.Symlink("gen-999999", h.path(certs)))
	if err := h.renew(h.all()...); err == nil || !strings.Contains(err.Error(), "used up") {
		t.Errorf("got %v", err)
	}
}
