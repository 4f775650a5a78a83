// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/test/testca"
)

// breaks are the ways in which a new set can turn out not to work.
var breaks = map[string]struct {
	bend func(h *host, items []Item)
	want func(error) bool
}{
	"start fails": {
		func(h *host, items []Item) { h.verifierStart(items, "-cert", "/nonexistent") },
		func(err error) bool { return errors.Is(err, service.ErrNotRunning) },
	},
	"port dead": {
		func(h *host, items []Item) {
			h.verifierStart(items, "-listen", "127.0.0.2:"+strconv.Itoa(h.port(keylime.Verifier)))
		},
		func(err error) bool {
			return strings.Contains(err.Error(), "connection refused") || errors.Is(err, context.DeadlineExceeded)
		},
	},
	"serves another certificate": {
		func(h *host, items []Item) {
			h.verifierStart(items, "-cert", h.path(certs+"/registrar.crt"), "-key", h.path(certs+"/registrar.key"))
		},
		func(err error) bool { var wrong *probe.WrongLeafError; return errors.As(err, &wrong) },
	},
	"knows no client CA": {
		func(h *host, items []Item) { h.verifierStart(items, "-ca", "/dev/null") },
		func(err error) bool { return errors.Is(err, probe.ErrUnknownCA) },
	},
	"speaks no TLS": {
		func(h *host, items []Item) { h.verifierStart(items, "-plain", "{}") },
		func(err error) bool { return strings.Contains(err.Error(), "tls") },
	},
}

// verifierStart adds arguments to the verifier's command, the last one wins.
func (h *host) verifierStart(items []Item, args ...string) {
	at := slices.IndexFunc(items, func(i Item) bool { return i.Profile == keylime.Verifier })
	items[at].Service.Start = append(slices.Clone(items[at].Service.Start), args...)
}

func TestRolledBackToTheGenerationBefore(t *testing.T) {
	for name, broken := range breaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.installer.Outage = 6 * time.Second
			h.must(h.renew(h.all()...))
			before, verifier := h.snapshot("etc"), h.installedSerial("verifier")

			items := h.all()
			broken.bend(h, items)
			err := h.renew(items...)
			var both joined
			if errors.As(err, &both) {
				t.Fatalf("the way back failed: %v", err)
			}
			if err == nil || !broken.want(err) {
				t.Fatalf("got %v", err)
			}
			t.Log(err)
			if h.installedSerial("verifier") != verifier || h.servedSerial(keylime.Verifier) != verifier {
				t.Error("the old certificate is not back")
			}
			if h.servedSerial(keylime.Registrar) != h.installedSerial("registrar") {
				t.Error("the registrar does not serve what is installed")
			}
			if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
				t.Errorf("/etc changed:\n%s", diff)
			}
			h.must(h.renew(h.all()...))
		})
	}
}

func TestRolledBackToNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.write("etc/keylime/verifier.conf.d/50-omen.conf", "[verifier]\nmine = 1\n", 0o640)
	before := h.snapshot("etc")
	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); !errors.Is(err, service.ErrNotRunning) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
	if mode, _ := h.mode("etc/keylime/verifier.conf.d/50-omen.conf"); mode != 0o640 {
		t.Errorf("mode of the drop-in that was there: %o", mode)
	}
	if left, err := os.ReadDir(h.path("var/lib/omen-agent/keylime")); err != nil || len(left) != 1 || left[0].Name() != "refused-000001" {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, err := os.ReadDir(h.path("run")); err != nil || len(left) != 0 {
		t.Errorf("running: %v, %v", left, err)
	}
	if _, err := h.installer.Current(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("got %v", err)
	}
}

func TestExpiredSetDoesNotComeBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.must(h.renew(h.all()...))
	chain, key := h.ca.Issue(t, testca.Want{Name: "verifier.keylime.test", Usages: testca.Server(), NotAfter: time.Now().Add(-time.Second)})
	h.rewrite(1, map[string]string{"verifier.crt": string(chain), "verifier.key": string(key)})

	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	err := h.renew(items...)
	if !errors.Is(err, ErrNothingBetter) {
		t.Fatalf("got %v", err)
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 2 {
		t.Errorf("current: %+v, %v; want the new set kept", got, err)
	}
	h.must(h.renew(h.all()...))
}

func TestServerThatTakesServersForClients(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	items := h.all()
	h.verifierStart(items, "-lax")
	if err := h.renew(items...); !errors.Is(err, probe.ErrNotRefused) {
		t.Errorf("got %v", err)
	}
}

func TestVerifyReportsWithoutChanging(t *testing.T) {
	h := newHost(t)
	items := h.all()
	findings := h.installer.Verify(t.Context(), items)
	if len(findings) != 1 || !errors.Is(findings[0].Err, ErrNotInstalled) {
		t.Fatalf("before the first installation: %+v", findings)
	}
	h.must(h.renew(items...))
	h.stopAll()
	before := h.snapshot("var/lib")
	wrong := map[string]int{}
	for _, finding := range h.installer.Verify(t.Context(), items) {
		if finding.Err != nil {
			wrong[finding.Certificate]++
			t.Log(finding)
		}
	}
	if wrong["verifier"] == 0 || wrong["registrar"] == 0 || wrong["tenant"] != 0 {
		t.Errorf("services are down, findings: %v", wrong)
	}
	if diff := cmp.Diff(before, h.snapshot("var/lib")); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}
