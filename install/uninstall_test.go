// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
)

// exactly is every path below a folder, with mode, owner and content.
func (h *host) exactly(name string) map[string]string {
	h.t.Helper()
	found := h.snapshot(name)
	for path, text := range found {
		info, err := os.Lstat(path)
		h.must(err)
		stat := info.Sys().(*syscall.Stat_t)
		found[path] = fmt.Sprintf("%s %d:%d %s", info.Mode(), stat.Uid, stat.Gid, text)
	}
	return found
}

// byHandOddly is byHand with modes and owners that are not ours.
func (h *host) byHandOddly() {
	h.byHand()
	h.must(os.Chmod(h.path("etc/keylime/certs"), 0o750))
	h.must(os.Lchown(h.path("etc/keylime/certs"), 0, 4712))
	h.must(os.Chmod(h.path("etc/keylime/certs/verifier.key"), 0o664))
	h.must(os.Lchown(h.path("etc/keylime/certs/verifier.key"), serviceUID, 4712))
}

func (h *host) wantAsFound(etc map[string]string) {
	h.t.Helper()
	if diff := cmp.Diff(etc, h.exactly("etc")); diff != "" {
		h.t.Errorf("/etc is not what it was:\n%s", diff)
	}
	for _, dir := range []string{"var/lib/omen-agent", "run/omen-agent"} {
		if _, err := os.Lstat(h.path(dir)); err == nil {
			h.t.Errorf("left: %v", h.snapshotNames(dir))
		}
	}
	if _, err := h.installer.Uninstall(h.t.Context(), nil); !errors.Is(err, ErrNotInstalled) {
		h.t.Errorf("again: %v", err)
	}
}

func TestUninstall(t *testing.T) {
	for name, row := range map[string]struct {
		found  func(h *host)
		folder string
	}{
		"nothing there": {func(*host) {}, "nothing"},
		"by hand":       {(*host).byHandOddly, "folder"},
		"empty folder":  {func(h *host) { h.mkdir("etc/keylime/certs") }, "folder"},
		"a drop-in of our name": {func(h *host) {
			h.write("etc/keylime/verifier.conf.d/50-omen.conf", "[verifier]\nmine = 1\n", 0o604)
			h.write("etc/keylime/tenant.conf.d/10-site.conf", "[tenant]\n", 0o400)
			h.chown("etc/keylime/tenant.conf.d/10-site.conf", serviceUID)
			h.chown("etc/keylime/tenant.conf.d", serviceUID)
		}, "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			row.found(h)
			etc := h.exactly("etc")
			for n := range 5 {
				items := h.all()
				if n == 2 {
					items[0] = h.item("verifier2", keylime.Verifier)
				}
				h.must(h.renew(items...))
			}
			done, err := h.installer.Uninstall(t.Context(), h.all())
			if err != nil || done.Folder != row.folder || len(done.Warnings) > 0 {
				t.Fatalf("%+v, %v", done, err)
			}
			h.wantAsFound(etc)
		})
	}
}

func TestUninstallAfter(t *testing.T) {
	for name, act := range map[string]func(h *host){
		"a way back":     func(h *host) { h.must(h.comeBack(h.all()...)) },
		"a roll back":    func(h *host) { items := h.all(); h.verifierStart(items, "-ca", "/dev/null"); _ = h.renew(items...) },
		"an interrupted": func(h *host) { h.interrupt(h.all()...) },
		"sealed keys": func(h *host) {
			items := h.all()
			items[3] = seal(items[3])
			h.must(h.renew(items...))
		},
		"half an uninstallation": func(h *host) {
			h.mkdir("etc/keylime/.certs.omen-found")
			h.write("etc/keylime/.certs.omen-found/ca.crt", h.read("var/lib/omen-agent/keylime/gen-000000/ca.crt"), 0o644)
			h.must(os.RemoveAll(h.path("etc/keylime/verifier.conf.d")))
		},
		"one without its link": func(h *host) { h.must(os.Remove(h.path("etc/keylime/certs"))) },
		"one without sets": func(h *host) {
			h.must(os.Rename(h.path("etc/keylime/certs"), h.path("etc/keylime/x")))
			h.must(os.Remove(h.path("etc/keylime/x")))
			h.must(os.CopyFS(h.path("etc/keylime/certs"), os.DirFS(h.path("var/lib/omen-agent/keylime/gen-000000"))))
			h.must(os.Remove(h.path("etc/keylime/certs/" + generation.ManifestName)))
			h.byHandModes()
			h.must(os.Remove(h.path(certs)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.mkdir("run")
			h.byHandServing()
			etc := h.exactly("etc")
			h.must(h.renew(h.all()...))
			act(h)
			done, err := h.installer.Uninstall(t.Context(), h.all())
			if err != nil {
				t.Fatalf("%+v, %v", done, err)
			}
			h.wantAsFound(etc)
		})
	}
}

// byHandModes gives a copied folder the modes of byHand.
func (h *host) byHandModes() {
	h.must(os.Chmod(h.path("etc/keylime/certs"), 0o755))
	files, err := filepath.Glob(h.path("etc/keylime/certs/*"))
	h.must(err)
	for _, file := range files {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(file, ".key") {
			mode = 0o600
		}
		h.must(os.Chmod(file, mode))
		if mode == 0o600 {
			h.must(os.Lchown(file, serviceUID, serviceUID))
		}
	}
}

func TestUninstallPutsServicesBack(t *testing.T) {
	h := newHost(t)
	items := h.all()
	h.must(h.renew(items...)) // nothing ran
	done, err := h.installer.Uninstall(t.Context(), items)
	if err != nil || len(done.Stopped) != 2 || len(done.Restarted) != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, profile := range []string{"verifier", "registrar"} {
		if _, err := os.Stat(h.path("run/keylime_" + profile + ".pid")); err == nil {
			t.Errorf("%s runs still", profile)
		}
	}
}

func TestUninstallLeavesWhatIsNotOurs(t *testing.T) {
	h := newHost(t)
	h.byHand()
	h.must(h.renew(h.all()...))
	h.write("var/lib/omen-agent/keylime/keep/file", "x", 0o600)
	h.mkdir("var/lib/omen-agent/state")
	h.must(os.Remove(h.path("etc/keylime/certs")))
	h.must(os.Symlink("/etc/pki", h.path("etc/keylime/certs")))
	done, err := h.installer.Uninstall(t.Context(), h.all())
	if err != nil || done.Folder != "left" || len(done.Warnings) != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if h.read("var/lib/omen-agent/keylime/keep/file") != "x" {
		t.Error("removed what is not ours")
	}
	if left, err := os.ReadDir(h.path("var/lib/omen-agent/keylime")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(h.path("var/lib/omen-agent/state")); err != nil {
		t.Error("what forget removes is gone: ", err)
	}
}

// TestUninstallWithoutExchange is on overlayfs with the folder in its lower layer.
func TestUninstallWithoutExchange(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	root := scratch(t)
	h := newHostIn(t, root)
	h.byHandOddly()
	etc := h.exactly("etc")
	cell.Cover(t, h.path("etc"), filepath.Join(root, "layers"))
	h.must(h.renew(h.all()...))
	h.must(h.renew(h.all()...))
	_, err := h.installer.Uninstall(t.Context(), h.all())
	h.must(err)
	h.wantAsFound(etc)
}

func TestUninstallOfADirectoryThatWeMade(t *testing.T) {
	h := newHost(t)
	h.must(os.RemoveAll(h.path("etc/keylime")))
	etc := h.exactly("etc")
	h.must(h.renew(h.item("agent", keylime.Agent)))
	_, err := h.installer.Uninstall(t.Context(), []Item{h.item("agent", keylime.Agent)})
	h.must(err)
	h.wantAsFound(etc)
}

func TestFoundIsNeverPruned(t *testing.T) {
	h := newHost(t)
	h.byHand()
	byHand := h.contents("etc/keylime/certs")
	for range 4 {
		h.must(h.renew(h.all()...))
	}
	h.checkAdopted(byHand)
	names, err := os.ReadDir(h.path("var/lib/omen-agent/keylime"))
	h.must(err)
	var left []string
	for _, entry := range names {
		left = append(left, entry.Name())
	}
	if diff := cmp.Diff([]string{"current", "found", "gen-000000", "gen-000003", "gen-000004"}, left); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
}

func TestSecondAgentDuringReturnAndUninstall(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	h.must(h.renew(h.all()...))
	first, err := h.installer.Return(t.Context(), h.all())
	h.must(err)
	other := &Installer{Root: h.root}
	_, one := other.Return(t.Context(), h.all())
	_, two := other.Uninstall(t.Context(), h.all())
	_, three := other.Spoiled(t.Context(), carried(h.all(), "verifier"))
	for _, err := range []error{one, two, three} {
		if !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	h.must(first.Close())
}

// The folder of an installed set is not another one all of a sudden: what was found at
// the first would be put back at the second, and the first would lead nowhere.
func TestFolderOfAnInstalledSetStays(t *testing.T) {
	h := newHost(t)
	item := h.web()
	item.Files = Files{Combined: "web.pem"}
	h.mkdir("etc/web/omen")
	h.write("etc/web/omen/web.pem", string(item.Chain), 0o644)
	h.must(h.renew(item))
	here := h.installer.Set
	h.installer.Set.Folder = "/etc/web/other"
	before := h.snapshotNames("etc")
	err := h.renew(item)
	_, leave := h.installer.Uninstall(t.Context(), []Item{item})
	if !errors.Is(err, ErrMoved) || !errors.Is(leave, ErrMoved) || !strings.Contains(remedy.Of(err), "/etc/web/omen") {
		t.Errorf("renewed: %v; uninstalled: %v", err, leave)
	}
	if diff := cmp.Diff(before, h.snapshotNames("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	h.installer.Set = here
	_, err = h.installer.Uninstall(t.Context(), []Item{item})
	h.must(err)
	if text, err := os.ReadFile(h.path("etc/web/omen/web.pem")); err != nil || string(text) != string(item.Chain) {
		t.Errorf("as found: %q, %v", text, err)
	}
}

// A dying service is started, and ends a moment later.
type dying struct {
	service.Untouched
	until *time.Time
}

func (d dying) Restart(context.Context) error {
	*d.until = time.Now().Add(500 * time.Millisecond)
	return nil
}

func (d dying) Alive(context.Context) error {
	if time.Now().After(*d.until) {
		return service.ErrNotRunning
	}
	return nil
}

// TestServiceThatDoesNotComeBack: what people had set up need not work any more, and that
// it was started says nothing.
func TestServiceThatDoesNotComeBack(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:1"} {
		s := served{address: address, controller: dying{until: new(time.Time)}}
		if err := restartAlone(t.Context(), s); !errors.Is(err, service.ErrNotRunning) {
			t.Errorf("at %q: %v", address, err)
		}
		s.controller = service.Untouched{}
		if err := restartAlone(t.Context(), s); err != nil {
			t.Errorf("one that runs, elsewhere than %q: %v", address, err)
		}
	}
}
