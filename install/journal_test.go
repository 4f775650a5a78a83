// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/service"
)

// interrupt installs and ends there, as a process that is killed before it has
// restarted anything.
func (h *host) interrupt(items ...Item) {
	h.t.Helper()
	change, err := h.installer.Install(h.t.Context(), items)
	h.must(err)
	h.must(change.release())
}

const journalPath = "var/lib/omen-agent/keylime/journal"

func TestRolledBackToWhatWasProven(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.must(h.renew(h.all()...))
	etc, proven := h.snapshot("etc"), h.installedSerial("verifier")
	items := h.all()
	items[0] = h.item("verifier2", keylime.Verifier) // so that the drop-ins change too
	h.interrupt(items...)
	if current, err := h.installer.Current(); err != nil || !current.Unproven || current.Generation != 2 {
		t.Fatalf("%+v, %v", current, err)
	}
	h.interrupt(h.all()...) // and again

	items = h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); !errors.Is(err, service.ErrNotRunning) {
		t.Fatalf("got %v", err)
	}
	if h.installedSerial("verifier") != proven || h.servedSerial(keylime.Verifier) != proven {
		t.Error("the proven set is not back")
	}
	if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	current, err := h.installer.Current()
	if err != nil || current.Unproven || current.Generation != 1 {
		t.Errorf("%+v, %v", current, err)
	}
	h.must(h.renew(h.all()...))
	if left, err := filepath.Glob(h.path(journalPath) + "*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestServicesOfAnInterruptedChangeRestart(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	items := h.all()
	h.interrupt(items...)
	items[2] = h.item("registrar", keylime.Registrar)
	h.must(h.renew(carried(items, "registrar")...))
	if got := h.servedSerial(keylime.Verifier); got != h.installedSerial("verifier") {
		t.Errorf("the verifier was not restarted: it serves %s", got)
	}
}

func TestFirstInstallationInterrupted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.write("etc/keylime/verifier.conf.d/50-omen.conf", "[verifier]\nmine = 1\n", 0o640)
	before := h.snapshot("etc")
	h.interrupt(h.all()...)
	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); !errors.Is(err, service.ErrNotRunning) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	if _, err := h.installer.Current(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("current: %v", err)
	}
}

func TestAdoptionInterruptedThenRolledBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.byHand()
	before := h.contents("etc/keylime/certs")
	h.interrupt(h.all()...)
	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); err == nil {
		t.Fatal("accepted")
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 0 {
		t.Errorf("current: %+v, %v", got, err)
	}
	if diff := cmp.Diff(before, h.contents("var/lib/omen-agent/keylime/gen-000000")); diff != "" {
		t.Errorf("generation 0:\n%s", diff)
	}
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

// A copy that is whole takes the place of the files that were removed already,
// where the folder could not be moved.
func TestHalfRemovedFolderLosesNothing(t *testing.T) {
	for name, change := range map[string]func(h *host){
		"untouched": func(*host) {},
		"renewed meanwhile": func(h *host) {
			h.write("etc/keylime/certs/ca.crt", string(h.ca.RootPEM), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.byHand()
			c := h.begin()
			copied, folder, err := c.copyFolder()
			h.must(err)
			h.must(c.store.SwitchTo(record.None))
			h.must(c.recordFound(t.Context(), folder))
			h.must(c.begin(&record.Journal{Version: record.JournalVersion, From: 0, To: 1, Adopted: 0}))
			h.must(c.release())
			h.must(os.Remove(h.path("etc/keylime/certs/verifier.key")))
			change(h)
			h.must(h.renew(h.all()...))
			byHand := "gen-000000"
			if name != "untouched" {
				byHand = "gen-000001"
			}
			kept := h.contents("var/lib/omen-agent/keylime/" + byHand)
			for _, f := range copied {
				if f.Name != "ca.crt" && kept["/"+f.Name] != string(f.Content) {
					t.Errorf("%s is lost", f.Name)
				}
			}
		})
	}
}

func TestFailedInstallationLeavesAnUnprovenSetAsItIs(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newHostIn(t, scratch(t))
	h.must(h.renew(h.all()...))
	h.interrupt(h.all()...)
	journal, etc := h.read(journalPath), h.snapshot("etc")
	path := h.path("etc/keylime")
	h.must(syscall.Mount(path, path, "", syscall.MS_BIND, ""))
	h.must(syscall.Mount("", path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	items := h.all()
	items[0].Name = "verifier2"
	if err := h.renew(items...); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("got %v", err)
	}
	h.must(syscall.Unmount(path, syscall.MNT_DETACH))
	if got, err := h.installer.Current(); err != nil || got.Generation != 2 || !got.Unproven {
		t.Errorf("current: %+v, %v", got, err)
	}
	if diff := cmp.Diff(journal, h.read(journalPath)); diff != "" {
		t.Errorf("journal:\n%s", diff)
	}
	if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	h.must(h.renew(h.all()...))
}

func TestJournalThatSaysNothingIsSetAside(t *testing.T) {
	for name, put := range map[string]func(h *host){
		"empty":       func(h *host) { h.write(journalPath, "", 0o600) },
		"half":        func(h *host) { h.write(journalPath, `{"version":1,"from":`, 0o600) },
		"unknown key": func(h *host) { h.write(journalPath, `{"version":1,"from":1,"to":2,"adopted":-1,"extra":1}`, 0o600) },
		"two":         func(h *host) { h.write(journalPath, `{"version":1,"to":1}{}`, 0o600) },
		"version":     func(h *host) { h.write(journalPath, `{"version":2,"to":1}`, 0o600) },
		"number":      func(h *host) { h.write(journalPath, `{"version":1,"from":1000000,"to":1}`, 0o600) },
		"service":     func(h *host) { h.write(journalPath, `{"version":1,"to":1,"services":["../x"]}`, 0o600) },
		"way out": func(h *host) {
			h.write(journalPath, `{"version":1,"to":1,"written":[{"component":"verifier","places":[{"name":"../passwd"}]}]}`, 0o600)
		},
		"link out": func(h *host) {
			h.write(journalPath, `{"version":1,"to":1,"outputs":[{"path":"etc/../passwd","target":"x"}]}`, 0o600)
		},
		"huge":   func(h *host) { h.write(journalPath, strings.Repeat(" ", record.MaxSize+1), 0o600) },
		"others": func(h *host) { h.write(journalPath, `{"version":1,"from":1,"to":2,"adopted":-1}`, 0o666) },
		"stranger": func(h *host) {
			h.write(journalPath, `{"version":1,"from":1,"to":2}`, 0o600)
			h.chown(journalPath, 4711)
		},
		"link":      func(h *host) { h.must(os.Symlink("/etc/passwd", h.path(journalPath))) },
		"hard link": func(h *host) { h.must(os.Link(h.path("etc/passwd"), h.path(journalPath))) },
		"pipe":      func(h *host) { h.must(syscall.Mkfifo(h.path(journalPath), 0o600)) },
		"folder":    func(h *host) { h.mkdir(journalPath) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.must(h.renew(h.all()...))
			pid := h.read("run/keylime_verifier.pid")
			put(h)
			items := h.all()
			h.must(h.renew(carried(items, "registrar")...))
			if _, err := os.Lstat(h.path(journalPath + ".bad")); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(h.path(journalPath)); err == nil {
				t.Error("it is still there")
			}
			if h.read("run/keylime_verifier.pid") == pid {
				t.Error("a service of which nothing is known was not restarted")
			}
		})
	}
}

func TestJournalHoldsNoKey(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	items := h.all()
	h.interrupt(items...)
	if mode, uid := h.mode(journalPath); mode != 0o600 || uid != 0 {
		t.Errorf("%o of %d", mode, uid)
	}
	for _, name := range []string{journalPath, "var/lib/omen-agent/keylime/found", certs + "/" + generation.ManifestName} {
		text := h.read(name)
		if strings.Contains(text, "PRIVATE") || slices.ContainsFunc(items, func(i Item) bool { return strings.Contains(text, strings.Split(string(i.Key), "\n")[1]) }) {
			t.Errorf("%s holds a key", name)
		}
	}
}
