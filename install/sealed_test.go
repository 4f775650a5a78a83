// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

// The installer does not care how a key is sealed; here it is written another way.
func seal(item Item) Item {
	item.Sealed = []byte("sealed " + base64.StdEncoding.EncodeToString(item.Key))
	return item
}

func unseal(_ context.Context, text []byte, _ *x509.Certificate) (KeyPEM, error) {
	key, found := bytes.CutPrefix(text, []byte("sealed "))
	if !found {
		return nil, errors.New("not sealed here")
	}
	return base64.StdEncoding.DecodeString(string(key))
}

func (h *host) sealedItems() []Item {
	items := h.all()
	for at := range items {
		items[at] = seal(items[at])
	}
	return items
}

const runSet = "run/omen-agent/keylime"

// reboot empties the tmpfs: the services have ended with it.
func (h *host) reboot() {
	h.t.Helper()
	files, err := filepath.Glob(h.path("run/*.pid"))
	h.must(err)
	h.stopAll()
	for _, file := range files {
		text, err := os.ReadFile(file)
		h.must(err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		h.must(err)
		for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; <-time.After(10 * time.Millisecond) {
			if time.Now().After(end) {
				h.t.Fatalf("process %d does not end", pid)
			}
		}
	}
	h.must(os.RemoveAll(h.path("run")))
	h.mkdir("run")
}

// standInsOf has services read their keys where the links in the set lead to on the
// host: inside its root.
func (h *host) standInsOf(items []Item) []Item {
	number := 1
	if current, err := h.installer.Current(); err == nil {
		number = current.Generation + 1
	}
	for at, item := range items {
		for n, word := range item.Service.Start {
			if strings.HasSuffix(word, ".key") && item.Sealed != nil {
				items[at].Service.Start[n] = h.path(runSet + "/" + generation.NameOf(number) + "/" + item.Name + ".key")
			}
		}
	}
	return items
}

func TestSealedKeysAreOnTheTmpfsOnly(t *testing.T) {
	h := newHost(t)
	h.mkdir("run")
	items := h.standInsOf(h.sealedItems())
	h.must(h.renew(items...))
	if target, err := os.Readlink(h.path(certs + "/verifier.key")); err != nil || target != "/"+runSet+"/gen-000001/verifier.key" {
		t.Errorf("link to %q, %v", target, err)
	}
	if mode, uid := h.mode(runSet + "/gen-000001/verifier.key"); mode != 0o600 || uid != serviceUID {
		t.Errorf("plain key: %o of %d", mode, uid)
	}
	for path, text := range h.snapshot("var/lib/omen-agent") {
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s holds a plain key", path)
		}
	}
	if h.servedSerial(keylime.Verifier) != h.installedSerial("verifier") {
		t.Error("not served")
	}
	if damage, err := h.installer.Damage(); err != nil || len(damage) > 0 {
		t.Errorf("%v, %v", damage, err)
	}
}

func TestSealedKeyIsCarried(t *testing.T) {
	for name, row := range map[string]struct {
		bend   func(h *host)
		opener Opener
		spoilt bool
	}{
		"from the tmpfs": {func(*host) {}, nil, false},
		"opened":         {(*host).reboot, unseal, false},
		"another key there": {func(h *host) {
			h.write(runSet+"/gen-000001/tenant.key", h.read(certs+"/registrar.key"), 0o600)
		}, unseal, false},
		"nobody opens": {(*host).reboot, nil, true},
		"does not come back": {(*host).reboot, func(context.Context, []byte, *x509.Certificate) (KeyPEM, error) {
			return nil, errors.New("PCR 7 moved")
		}, true},
		"another comes back": {(*host).reboot, func(context.Context, []byte, *x509.Certificate) (KeyPEM, error) {
			_, key := testca.New(t, "other").Issue(t, testca.Want{Name: "x", Usages: testca.Client()})
			return KeyPEM(key), nil
		}, true},
		"blob changed": {func(h *host) { h.reboot(); h.write(certs+"/tenant.sealed", "sealed AAAA", 0o400) }, unseal, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mkdir("run")
			items := []Item{seal(h.item("tenant", keylime.Tenant)), h.item("registrar", keylime.Registrar)}
			h.must(h.renew(items...))
			key := string(items[0].Key)
			row.bend(h)
			h.installer.Open = row.opener
			next := []Item{{Name: "tenant", Profile: keylime.Tenant}, h.item("registrar", keylime.Registrar)}
			if err := h.renew(next...); errors.Is(err, ErrSpoiled) != row.spoilt {
				t.Fatalf("got %v", err)
			} else if row.spoilt {
				t.Log(err)
				if got, err := h.installer.Current(); err != nil || got.Generation != 1 {
					t.Errorf("current: %+v, %v", got, err)
				}
				spoiled, err := h.installer.Spoiled(t.Context(), next)
				if err != nil || len(spoiled) != 1 || spoiled[0].Certificate != "tenant" {
					t.Errorf("spoiled: %v, %v", spoiled, err)
				}
				return
			}
			if h.read(runSet+"/gen-000002/tenant.key") != key {
				t.Error("the key did not come along")
			}
			if mode, uid := h.mode(runSet + "/gen-000002/tenant.key"); mode != 0o600 || uid != serviceUID {
				t.Errorf("%o of %d", mode, uid)
			}
		})
	}
}

func TestKeyThatIsSealedNoMore(t *testing.T) {
	h := newHost(t)
	h.mkdir("run")
	h.must(h.renew(seal(h.item("tenant", keylime.Tenant))))
	h.must(h.renew(h.item("tenant", keylime.Tenant)))
	if _, err := os.Lstat(h.path(certs + "/tenant.sealed")); err == nil {
		t.Error("what the old key comes back from is carried along")
	}
	if info, err := os.Lstat(h.path(certs + "/tenant.key")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
	h.must(h.renew(h.item("tenant", keylime.Tenant)))
	if left, err := filepath.Glob(h.path(runSet + "/*")); err != nil || len(left) > 0 {
		t.Errorf("plain keys of sets that are gone: %v, %v", left, err)
	}
}

func TestPlainKeysOfPrunedSetsGo(t *testing.T) {
	h := newHost(t)
	h.mkdir("run")
	h.write(runSet+"/gen-000777/tenant.key", "of a set that is no more", 0o600)
	for range 4 {
		h.must(h.renew(seal(h.item("tenant", keylime.Tenant))))
	}
	left, err := filepath.Glob(h.path(runSet + "/*"))
	if want := []string{h.path(runSet + "/gen-000003"), h.path(runSet + "/gen-000004")}; err != nil || cmp.Diff(want, left) != "" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestReturnToSealedKeys(t *testing.T) {
	for name, reboot := range map[string]bool{"same boot": false, "after a reboot": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mkdir("run")
			first := seal(h.item("tenant", keylime.Tenant))
			h.must(h.renew(first))
			h.must(h.renew(seal(h.item("tenant", keylime.Tenant))))
			if reboot {
				h.reboot()
				if err := h.comeBack(Item{Name: "tenant", Profile: keylime.Tenant}); !errors.Is(err, ErrNoReturn) || !errors.Is(err, ErrNoPlainKey) {
					t.Errorf("with nobody who opens: %v", err)
				}
				h.installer.Open = unseal
			}
			h.must(h.comeBack(Item{Name: "tenant", Profile: keylime.Tenant}))
			if h.read(runSet+"/gen-000001/tenant.key") != string(first.Key) {
				t.Error("the key of the set before is not there")
			}
		})
	}
}

func TestRolledBackToSealedKeys(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.mkdir("run")
	h.installer.Outage = 6 * time.Second
	h.must(h.renew(h.standInsOf(h.sealedItems())...))
	verifier := h.installedSerial("verifier")
	items := h.standInsOf(h.sealedItems())
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); err == nil {
		t.Fatal("accepted")
	}
	if h.installedSerial("verifier") != verifier {
		t.Error("the set before is not back")
	}
	if _, err := os.Stat(h.path(runSet + "/gen-000001/verifier.key")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.path(runSet + "/gen-000002")); err == nil {
		t.Error("plain keys of the refused set are left")
	}
}

func TestRunThatCannotHoldKeys(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	root := scratch(t)
	h := newHostIn(t, root)
	h.must(h.renew(h.all()...))
	etc, state, verifier := h.snapshot("etc"), h.snapshot("var/lib/omen-agent"), h.servedSerial(keylime.Verifier)
	pids := h.read("run/keylime_verifier.pid")
	tmpfs := func(run string, flags uintptr, options string) {
		h.must(syscall.Mount("tmpfs", run, "tmpfs", flags, "mode=0755"+options))
	}
	disk := filepath.Join(root, "disk")
	h.must(os.Mkdir(disk, 0o755))
	for _, row := range []struct {
		name string
		bend func(run string)
		want error
		hint string
	}{
		{"a disk", func(run string) {
			h.must(syscall.Mount("overlay", run, "overlay", 0, "lowerdir="+h.path("etc")+":"+disk))
		}, ErrNotMemory, "mount a tmpfs"},
		{"full", func(run string) {
			tmpfs(run, 0, ",size=16k,nr_inodes=32")
			h.must(os.MkdirAll(run+"/omen-agent/keylime", 0o711))
			fill(t, run+"/filler")
		}, syscall.ENOSPC, "in memory"},
		{"a service's", func(run string) {
			tmpfs(run, 0, "")
			h.must(os.Mkdir(run+"/omen-agent", 0o755))
			h.must(os.Chown(run+"/omen-agent", serviceUID, serviceUID))
		}, nil, "chown root"},
		{"a link", func(run string) { tmpfs(run, 0, ""); h.must(os.Symlink("/etc", run+"/omen-agent")) }, syscall.ENOTDIR, ""},
		{"read-only", func(run string) { tmpfs(run, syscall.MS_RDONLY, "") }, syscall.EROFS, "writable"},
	} {
		row.bend(h.path("run"))
		items := h.all()
		items[3] = seal(items[3])
		err := h.renew(items...)
		if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(remedy.Of(err), row.hint) {
			t.Errorf("%s: %v, hint %q", row.name, err, remedy.Of(err))
		}
		t.Log(row.name, err)
		h.must(syscall.Unmount(h.path("run"), syscall.MNT_DETACH))
		if diff := cmp.Diff(etc, h.snapshot("etc")); diff != "" {
			t.Errorf("%s: /etc changed:\n%s", row.name, diff)
		}
		if diff := cmp.Diff(state, h.snapshot("var/lib/omen-agent")); diff != "" {
			t.Errorf("%s: the sets changed:\n%s", row.name, diff)
		}
		if h.servedSerial(keylime.Verifier) != verifier || h.read("run/keylime_verifier.pid") != pids {
			t.Errorf("%s: the service was touched", row.name)
		}
	}
}
