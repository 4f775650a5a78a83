// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/test/testca"
)

// pid is the number in a service's pid file.
func (h *host) pid(program string) string {
	h.t.Helper()
	return strings.TrimSpace(h.read("run/" + program + ".pid"))
}

// closed are ways in which a service could not start again, none of which shows
// before the files are in place.
var closed = map[string]struct {
	bend, mend func(h *host)
	cause      error
	says       string
}{
	"a folder on the way": {
		func(h *host) { h.must(os.Chmod(h.path("var/lib"), 0o700)) },
		func(h *host) { h.must(os.Chmod(h.path("var/lib"), 0o755)) },
		ErrUnreadable, "/etc/keylime/certs/registrar.key as user keylime: permission denied",
	},
	"a program for root only": {
		func(h *host) { h.must(os.Chmod(h.path("opt"), 0o700)) },
		func(h *host) { h.must(os.Chmod(h.path("opt"), 0o755)) },
		service.ErrCannotStart, "keylime_registrar as user keylime: permission denied",
	},
	"a log that is a link": {
		func(h *host) {
			h.must(os.Rename(h.path("var/log/keylime_verifier.log"), h.path("var/log/old")))
			h.must(os.Symlink("old", h.path("var/log/keylime_verifier.log")))
		},
		func(h *host) { h.must(os.Rename(h.path("var/log/old"), h.path("var/log/keylime_verifier.log"))) },
		service.ErrCannotStart, "a link is on the way",
	},
}

// What cannot start again is not stopped, and nothing else is either.
func TestPreflight(t *testing.T) {
	h := newHost(t)
	items := func() []Item {
		return []Item{h.item("registrar", keylime.Registrar), h.item("verifier", keylime.Verifier), h.item("verifier-client", keylime.VerifierClient)}
	}
	h.must(h.renew(items()...))
	for name, c := range closed {
		t.Run(name, func(t *testing.T) {
			h.t = t
			verifier, registrar, serial := h.pid("keylime_verifier"), h.pid("keylime_registrar"), h.installedSerial("verifier")
			c.bend(h)
			err := h.renew(items()...)
			c.mend(h)
			if !errors.Is(err, c.cause) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			t.Logf("%v; hint %q", err, remedy.Of(err))
			if h.pid("keylime_verifier") != verifier || h.pid("keylime_registrar") != registrar {
				t.Error("a service was restarted")
			}
			if h.installedSerial("verifier") != serial || h.servedSerial(keylime.Verifier) != serial {
				t.Error("the old certificate is not what is installed and served")
			}
			h.must(h.renew(items()...)) // mended, and nothing is left behind
		})
	}
}

// A file that somebody changed between the switch and the restart is no file that a
// service should read.
func TestPreflightSeesWhatIsThere(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.item("registrar", keylime.Registrar)))
	before := h.pid("keylime_registrar")
	change, err := h.installer.Install(t.Context(), []Item{h.item("registrar", keylime.Registrar)})
	h.must(err)
	other, _ := h.ca.Issue(t, testca.Want{Name: "other.keylime.test", Usages: testca.Server()})
	h.must(os.WriteFile(h.path(certs+"/registrar.crt"), other, 0o644))
	if err := change.Reload(t.Context()); err == nil {
		t.Error("no error")
	}
	h.must(errors.Join(change.RollBack(t.Context()), change.Close()))
	if h.pid("keylime_registrar") != before {
		t.Error("the registrar was restarted")
	}
}

// The agent listens only after it has registered: it is not stopped while its
// registrar is away, and a registrar that restarts is waited for.
func TestAgentWaitsForItsRegistrar(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.agent("0.2.9")))
	before := h.pid("keylime_agent")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	address := listener.Addr().String()
	h.must(listener.Close())
	_, port, err := net.SplitHostPort(address)
	h.must(err)
	h.write("etc/keylime/agent.conf", "[agent]\nregistrar_ip = \"127.0.0.1\"\nregistrar_port = "+port+"\n", 0o440)

	h.installer.Outage = time.Second
	err = h.renew(h.agent("0.2.9"))
	if err == nil || !strings.Contains(err.Error(), "registrar does not answer") || h.pid("keylime_agent") != before {
		t.Fatalf("got %v", err)
	}

	h.installer.Outage = 10 * time.Second
	back := time.AfterFunc(300*time.Millisecond, func() {
		if listener, err = net.Listen("tcp", address); err == nil {
			t.Cleanup(func() { listener.Close() })
		}
	})
	defer back.Stop()
	h.must(h.renew(h.agent("0.2.9")))
	if h.pid("keylime_agent") == before {
		t.Error("the agent was not restarted")
	}
}

// partly renews the registrar's certificate alone.
func (h *host) partly() error {
	h.t.Helper()
	return h.renew(h.item("registrar", keylime.Registrar), h.carried("verifier", keylime.Verifier), h.carried("verifier-client", keylime.VerifierClient))
}

func (h *host) carried(name, profile string) Item {
	h.t.Helper()
	item := h.item(name, profile)
	item.Chain, item.Key = nil, nil
	return item
}

// A service that has older certificates in memory than the set has is restarted with
// the next renewal of whatever certificate, before they end; one that has not is left
// alone.
func TestServiceBehindItsSet(t *testing.T) {
	h := newHost(t)
	all := func() []Item {
		return []Item{h.item("registrar", keylime.Registrar), h.item("verifier", keylime.Verifier), h.item("verifier-client", keylime.VerifierClient)}
	}
	h.must(h.renew(all()...))
	before := h.pid("keylime_verifier")
	for round := range 4 { // more than generations are kept
		h.must(h.partly())
		if h.pid("keylime_verifier") != before {
			t.Fatalf("round %d: the verifier was restarted", round)
		}
	}

	// An agent that ended between switch and restart, and whose journal is lost.
	change, err := h.installer.Install(t.Context(), all())
	h.must(err)
	h.must(change.Close())
	h.must(os.Remove(filepath.Join(h.path("var/lib/omen-agent/keylime"), record.JournalName)))
	behind, err := h.installer.Behind(t.Context(), all())
	if err != nil || !slices.Equal(behind, []string{"registrar", "verifier", "verifier-client"}) {
		t.Fatalf("behind: %v, %v", behind, err)
	}
	h.must(h.partly())
	if h.pid("keylime_verifier") == before || h.servedSerial(keylime.Verifier) != h.installedSerial("verifier") {
		t.Error("the verifier goes on with what it had read")
	}
	before = h.pid("keylime_verifier")
	h.must(h.partly())
	if behind, err = h.installer.Behind(t.Context(), all()); err != nil || len(behind) != 0 || h.pid("keylime_verifier") != before {
		t.Errorf("behind: %v, %v", behind, err)
	}
}

// Where nothing is installed, or nothing runs, nobody is behind.
func TestNobodyBehind(t *testing.T) {
	h := newHost(t)
	items := []Item{h.item("registrar", keylime.Registrar)}
	if behind, err := h.installer.Behind(t.Context(), items); len(behind) != 0 || err != nil && !errors.Is(err, ErrNotInstalled) {
		t.Errorf("%v, %v", behind, err)
	}
	h.must(h.renew(items...))
	pid, err := strconv.Atoi(h.pid("keylime_registrar"))
	h.must(err)
	process, err := os.FindProcess(pid)
	h.must(err)
	h.must(process.Kill())
	if behind, err := h.installer.Behind(t.Context(), items); len(behind) != 0 || err != nil {
		t.Errorf("%v, %v", behind, err)
	}
}
