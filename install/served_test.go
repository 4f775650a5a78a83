// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
)

// TestServed asks when nothing is there, when all is well, when a service has
// loaded another set than is installed, and when none runs.
func TestServed(t *testing.T) {
	h := newHost(t)
	items := h.all()
	if found, err := h.installer.Served(t.Context(), items); len(found) > 0 || err != nil {
		t.Fatalf("nothing is installed: %v, %v", found, err)
	}
	h.must(h.renew(items...))
	before := h.snapshot("var/lib")
	ask := func(want map[string]bool) (all []Finding) {
		t.Helper()
		all, err := h.installer.Served(t.Context(), items)
		h.must(err)
		got := map[string]bool{}
		for _, f := range all {
			got[f.Certificate] = f.Err == nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%v", diff, all)
		}
		return all
	}
	ask(map[string]bool{"verifier": true, "registrar": true})
	if diff := cmp.Diff(before, h.snapshot("var/lib")); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}

	change, err := h.installer.Install(t.Context(), h.all())
	h.must(err)
	h.must(change.Close()) // nobody has reloaded
	for _, f := range ask(map[string]bool{"verifier": false, "registrar": false}) {
		var wrong *probe.WrongLeafError
		if !errors.As(f.Err, &wrong) || f.Detail != wrong.Installed {
			t.Errorf("%s: %v", f.Certificate, f.Err)
		}
	}
	h.stopAll()
	ask(map[string]bool{"verifier": false, "registrar": false})
	h.stranger(keylime.Verifier)
	if all, err := h.installer.Served(t.Context(), items); err == nil || !strings.Contains(err.Error(), "which is not keylime_verifier") {
		t.Errorf("somebody at the port of a service that does not run is taken for it: %v, %v", all, err)
	}
}

// stranger listens where a service does not any more, with a certificate of its own.
func (h *host) stranger(profile string) {
	h.t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port(profile)))
	deadline := time.Now().Add(10 * time.Second)
	listener, err := net.Listen("tcp", address)
	for errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline) { // it was told to end, and is about to
		listener, err = net.Listen("tcp", address)
	}
	h.must(err)
	h.must(server.Listener.Close())
	server.Listener = listener
	server.StartTLS()
	h.t.Cleanup(server.Close)
}
