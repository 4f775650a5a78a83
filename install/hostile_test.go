// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

// A key belongs to its service, and every folder on the way lets it pass: what
// it does to the key must not keep the other certificates of the host from
// being renewed.
func TestServiceThatSpoilsItsKeyStopsNoRenewal(t *testing.T) {
	for name, spoil := range map[string]func(h *host, key string){
		"second name": func(h *host, key string) { h.must(os.Link(h.path(key), h.path("var/second"))) },
		"too large":   func(h *host, key string) { h.write(key, strings.Repeat("x", keypair.MaxFile+1), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.must(h.renew(h.all()...))
			before := h.installedSerial("verifier")
			spoil(h, "var/lib/omen-agent/keylime/gen-000001/verifier.key")
			if current, err := h.installer.Current(); err != nil || len(current.Certificates) == 0 {
				t.Errorf("current: %+v, %v", current, err)
			}
			h.must(h.renew(h.all()...))
			if h.installedSerial("verifier") == before || h.servedSerial(keylime.Verifier) != h.installedSerial("verifier") {
				t.Error("not renewed")
			}
		})
	}
}

// /etc/keylime belongs to Keylime, so that what was a file may be a pipe by now.
func TestPipeAsConfigurationIsNotWaitedFor(t *testing.T) {
	h := newHost(t)
	items := h.all()
	h.must(syscall.Mkfifo(h.path("etc/keylime/agent.conf"), 0o644))
	items = append(items, h.item("agent", keylime.Agent))
	done := make(chan error, 1)
	go func() { done <- h.renew(items...) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("waits for somebody to write into the pipe")
	}
}

// A folder can hold as many files as a set may, and ours come on top.
func TestSetThatCouldNotBeReadAgainIsNotWritten(t *testing.T) {
	h := newHost(t)
	h.byHand()
	for n := range record.MaxFiles - 5 { // with the five of byHand: full
		h.write(fmt.Sprintf("etc/keylime/certs/more-%03d.crt", n), string(h.ca.IntermediatePEM), 0o644)
	}
	before := h.snapshot("etc")
	err := h.renew(h.all()...)
	if err == nil || remedy.Of(err) == "" {
		t.Errorf("got %v", err)
	}
	if _, err := h.installer.Current(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("current: %v", err)
	}
	if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
		t.Errorf("/etc changed:\n%s", diff)
	}
}

// A set whose CA has come to an end, or is another's, serves nobody.
func TestSetThatReachesNoRootDoesNotComeBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.installer.Outage = 6 * time.Second
	h.must(h.renew(h.all()...))
	chain, key := testca.New(t, "other").Issue(t, testca.Want{Name: "verifier.keylime.test", Usages: testca.Server()})
	h.write("var/lib/omen-agent/keylime/gen-000001/verifier.crt", string(chain), 0o644)
	h.write("var/lib/omen-agent/keylime/gen-000001/verifier.key", string(key), 0o600)

	items := h.all()
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); !errors.Is(err, ErrNothingBetter) {
		t.Fatalf("got %v", err)
	}
	if got, err := h.installer.Current(); err != nil || got.Generation != 2 {
		t.Errorf("current: %+v, %v; want the new set kept", got, err)
	}
}
