// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

// byHand fills /etc/keylime/certs as the manual set-up did: everything owned by
// root, the CA file without its root.
func (h *host) byHand() {
	h.t.Helper()
	for _, name := range []string{"verifier", "registrar"} {
		chain, key := h.ca.Issue(h.t, testca.Want{Name: name + ".keylime.test", Usages: append(testca.Server(), testca.Client()...)})
		leaf, _, _ := strings.Cut(string(chain), "-----END CERTIFICATE-----")
		h.write("etc/keylime/certs/"+name+".crt", leaf+"-----END CERTIFICATE-----", 0o644)
		h.write("etc/keylime/certs/"+name+".key", string(key), 0o600)
	}
	h.write("etc/keylime/certs/ca.crt", string(h.ca.IntermediatePEM), 0o644)
}

// contents is a folder without its own path.
func (h *host) contents(dir string) map[string]string {
	found := map[string]string{}
	for path, text := range h.snapshot(dir) {
		found[strings.TrimPrefix(path, h.path(dir))] = text
	}
	delete(found, "/"+generation.ManifestName)
	return found
}

func (h *host) checkAdopted(byHand map[string]string) {
	h.t.Helper()
	if diff := cmp.Diff(byHand, h.contents("var/lib/omen-agent/keylime/gen-000000")); diff != "" {
		h.t.Errorf("generation 0 is not what was there:\n%s", diff)
	}
	if target, err := os.Readlink(h.path("etc/keylime/certs")); err != nil || target != "/var/lib/omen-agent/keylime/current" {
		h.t.Errorf("link: %q, %v", target, err)
	}
	left, err := filepath.Glob(h.path("etc/keylime/.certs*"))
	if err != nil || len(left) > 0 {
		h.t.Errorf("left: %v, %v", left, err)
	}
	if h.servedSerial(keylime.Verifier) != h.installedSerial("verifier") {
		h.t.Error("the new certificate is not served")
	}
}

func TestFolderFilledByHandBecomesGenerationZero(t *testing.T) {
	h := newHost(t)
	h.byHand()
	before := h.contents("etc/keylime/certs")
	h.write("etc/keylime/certs/site-ca.pem", string(h.ca.RootPEM), 0o644)
	before["/site-ca.pem"] = string(h.ca.RootPEM)
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
	if h.read(certs+"/site-ca.pem") != string(h.ca.RootPEM) {
		t.Error("a file that somebody's configuration may name is gone")
	}
	if mode, uid := h.mode("var/lib/omen-agent/keylime/gen-000000/verifier.key"); mode != 0o600 || uid != 0 {
		t.Errorf("key of generation 0: %o of %d", mode, uid)
	}
}

func TestRolledBackToWhatWasByHand(t *testing.T) {
	h := newHost(t)
	h.byHand()
	before := h.contents("etc/keylime/certs")
	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(before, h.contents("var/lib/omen-agent/keylime/gen-000000")); diff != "" {
		t.Errorf("generation 0:\n%s", diff)
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 0 {
		t.Errorf("current: %+v, %v", got, err)
	}
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

func TestFolderThatIsNotTakenOver(t *testing.T) {
	for name, bend := range map[string]func(h *host){
		"stranger's file": func(h *host) { h.chown("etc/keylime/certs/verifier.crt", 12345) },
		"link":            func(h *host) { h.must(os.Symlink("/etc/shadow", h.path("etc/keylime/certs/x.pem"))) },
		"hard link": func(h *host) {
			h.must(os.Link(h.path("etc/keylime/certs/verifier.key"), h.path("etc/keylime/verifier.key")))
		},
		"folder":    func(h *host) { h.mkdir("etc/keylime/certs/old") },
		"too large": func(h *host) { h.write("etc/keylime/certs/x.pem", strings.Repeat("#", keypair.MaxFile+1), 0o600) },
		"empty":     func(h *host) { h.write("etc/keylime/certs/verifier.crt.new", "", 0o600) },
		"no PEM":    func(h *host) { h.write("etc/keylime/certs/notes.txt", "remember the milk", 0o600) },
		"bad PEM": func(h *host) {
			h.write("etc/keylime/certs/x.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600)
		},
		"named as if ours, sealed": func(h *host) {
			h.write("etc/keylime/certs/verifier.sealed", "-----BEGIN X-----\nAAAA\n-----END X-----\n", 0o600)
		},
		"named as if ours, forms": func(h *host) {
			h.write("etc/keylime/certs/verifier.forms", "-----BEGIN X-----\nAAAA\n-----END X-----\n", 0o600)
		},
		"too many":      func(h *host) { h.many() },
		"named pipe":    func(h *host) { cell.Run(h.t, "mkfifo", h.path("etc/keylime/certs/pipe")) },
		"service's own": func(h *host) { h.chown("etc/keylime/certs/verifier.key", 4712) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.byHand()
			bend(h)
			before := h.snapshotNames("etc")
			err := h.renew(h.all()...)
			if !errors.Is(err, ErrNotAdoptable) || remedy.Of(err) == "" {
				t.Fatalf("got %v, hint %q", err, remedy.Of(err))
			}
			t.Log(err)
			if diff := cmp.Diff(before, h.snapshotNames("etc")); diff != "" {
				t.Errorf("/etc changed:\n%s", diff)
			}
			if left := h.snapshotNames("var/lib/omen-agent/keylime"); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func (h *host) many() {
	for at := range record.MaxFiles {
		h.write("etc/keylime/certs/"+strings.Repeat("x", at/26+1)+string(rune('a'+at%26)), "x", 0o600)
	}
}

// snapshotNames is a snapshot that opens nothing.
func (h *host) snapshotNames(dir string) []string {
	h.t.Helper()
	var names []string
	h.must(filepath.WalkDir(h.path(dir), func(path string, entry os.DirEntry, err error) error {
		names = append(names, path+" "+entry.Type().String())
		return err
	}))
	return names
}

func TestFolderThatChangesMeanwhileIsPutBack(t *testing.T) {
	h := newHost(t)
	h.byHand()
	c := h.begin()
	copied, folder, err := c.copyFolder()
	h.must(err)
	number := folder.Generation
	h.write("etc/keylime/certs/verifier.crt", string(h.ca.RootPEM), 0o644)
	before := h.contents("etc/keylime/certs")
	if err := c.adopt(number, copied); !errors.Is(err, ErrNotAdoptable) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, h.contents("etc/keylime/certs")); diff != "" {
		t.Errorf("the folder is not back:\n%s", diff)
	}
	c.begun, c.number = true, number+1
	h.must(c.undo())
	h.must(c.release())
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

// begin is an installation up to where the disk is about to change.
func (h *host) begin() *Change {
	h.t.Helper()
	lock, err := h.installer.lock()
	h.must(err)
	c := newChange(h.installer, lock)
	opened, err := generation.Open(h.installer.root(), h.installer.stateDir(), KeylimeSet.Name)
	h.must(err)
	c.store = &opened
	c.config, _, err = h.installer.openConfig()
	h.must(err)
	c.plan = &plan{}
	return c
}

func TestCrashBetweenTheTwoRenames(t *testing.T) {
	h := newHost(t)
	h.byHand()
	before := h.contents("etc/keylime/certs")
	h.must(os.Rename(h.path("etc/keylime/certs"), h.path("etc/keylime/.certs.omen-old")))
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

func TestCrashAfterTheExchange(t *testing.T) {
	h := newHost(t)
	h.byHand()
	before := h.contents("etc/keylime/certs")
	c := h.begin()
	copied, folder, err := c.copyFolder()
	h.must(err)
	h.must(c.store.SwitchTo(folder.Generation))
	h.must(c.config.Symlink(h.installer.linkTarget(), ".certs.omen"))
	h.must(c.config.Exchange(".certs.omen", keylime.CertsName))
	h.must(c.release())
	if len(copied) != 5 {
		t.Fatalf("copied %d files", len(copied))
	}
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

// TestFolderOnALowerLayer has the folder where it cannot be moved at all, as in
// a container: overlayfs answers EXDEV to the exchange and to the rename.
func TestFolderOnALowerLayer(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	root := scratch(t)
	h := newHostIn(t, root)
	h.byHand()
	before := h.contents("etc/keylime/certs")
	cell.Cover(t, h.path("etc"), filepath.Join(root, "layers"))
	c := h.begin()
	h.must(c.config.Symlink("x", ".certs.omen"))
	if err := c.config.Exchange(".certs.omen", keylime.CertsName); err == nil {
		t.Fatal("this overlay exchanges; the test shows nothing")
	}
	if err := c.config.Rename(keylime.CertsName, ".certs.omen-old"); err == nil {
		t.Fatal("this overlay renames; the test shows nothing")
	}
	h.must(c.release())
	h.must(h.renew(h.all()...))
	h.checkAdopted(before)
}

// scratch is a fresh tmpfs that ends with the cell.
func scratch(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	cell.Mount(t, "tmpfs", root, "tmpfs", 0, "mode=0755,size=256m")
	for dir := filepath.Dir(root); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
