// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/service"
)

// barred are ways in which the registrar, which runs, could not come back. Each has a
// way to make it so and a word of the reason.
var barred = map[string]struct {
	bend  func(m *machine)
	cause error
	says  string
}{
	"a sandbox that hides the set": {
		func(m *machine) {
			m.dropIn(registrarUnit, "[Service]\nProtectSystem=strict\nInaccessiblePaths=-/var/lib/omen-agent\n")
		},
		service.ErrCannotStart, "InaccessiblePaths hides /var/lib/omen-agent/keylime",
	},
	"a sandbox that hides the link": {
		func(m *machine) { m.dropIn(registrarUnit, "[Service]\nTemporaryFileSystem=/etc/keylime:ro\n") },
		service.ErrCannotStart, "TemporaryFileSystem hides /etc/keylime/certs",
	},
	"a program that is gone": {
		func(m *machine) {
			m.dropIn(registrarUnit, "[Service]\nExecStart=\nExecStart=/usr/bin/keylime_registrar2\n")
		},
		service.ErrCannotStart, "/usr/bin/keylime_registrar2",
	},
	"a program for root only": {
		func(m *machine) {
			m.write("/usr/local/bin/keylime_registrar", "#!/bin/sh\n")
			m.must(os.Chmod("/usr/local/bin/keylime_registrar", 0o700))
			m.t.Cleanup(func() { m.must(os.Remove("/usr/local/bin/keylime_registrar")) })
			m.dropIn(registrarUnit, "[Service]\nExecStart=\nExecStart=/usr/local/bin/keylime_registrar\n")
		},
		service.ErrCannotStart, "as user keylime: permission denied",
	},
	"a folder on the way": {
		func(m *machine) {
			m.must(os.Chmod("/var/lib", 0o700))
			m.t.Cleanup(func() { m.must(os.Chmod("/var/lib", 0o755)) })
		},
		install.ErrUnreadable, "/etc/keylime/certs/registrar.key as user keylime: permission denied",
	},
	"a unit that refuses": {
		func(m *machine) {
			m.dropIn(registrarUnit, "[Unit]\nRefuseManualStop=yes\n")
			m.t.Cleanup(func() { m.dropIn(registrarUnit, "") }) // or it could not be stopped
		},
		service.ErrCannotStart, "RefuseManualStop",
	},
}

// TestBarredUnitIsNotStopped: a start that fails would cost 120 s.
func TestBarredUnitIsNotStopped(t *testing.T) {
	for name, c := range barred {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.renewed(m.item("registrar", keylime.Registrar))
			before, id, serial := m.tree(), m.show(registrarUnit, "InvocationID"), m.served(registrarUnit)
			c.bend(m)
			o := m.renew(m.item("registrar", keylime.Registrar))
			if !errors.Is(o.err, c.cause) || !strings.Contains(o.err.Error(), c.says) || o.back != nil {
				t.Errorf("got %v; roll back: %v", o.err, o.back)
			}
			t.Logf("after %s: %v", o.took, o.err)
			if m.show(registrarUnit, "InvocationID") != id || m.served(registrarUnit) != serial {
				t.Error("the registrar was restarted")
			}
			m.same(before)
		})
	}
}

// TestSandboxThatShowsTheSet is no hindrance.
func TestSandboxThatShowsTheSet(t *testing.T) {
	m := newMachine(t)
	m.dropIn(registrarUnit, "[Service]\nProtectSystem=strict\nReadWritePaths=/var/lib/keylime\nProtectHome=yes\nPrivateTmp=yes\n")
	m.renewed(m.item("registrar", keylime.Registrar))
	m.renewed(m.item("registrar", keylime.Registrar))
	if m.served(registrarUnit) != m.installed("registrar") {
		t.Error("the registrar does not serve what is installed")
	}
}

// knownAgent is the agent's certificate, of a version that nobody need be asked.
func (m *machine) knownAgent() install.Item {
	m.t.Helper()
	item := m.agentItem()
	item.AgentVersion = "0.2.9"
	return item
}

// TestUnitBehindItsSet goes by systemd's own times.
func TestUnitBehindItsSet(t *testing.T) {
	m := newMachine(t)
	m.renewed(m.knownAgent())
	change, err := m.installer.Install(t.Context(), []install.Item{m.knownAgent()})
	m.must(err)
	m.must(change.Close()) // the agent was ended before the restart
	for _, want := range [][]string{{"agent"}, nil} {
		behind, err := m.installer.Behind(t.Context(), []install.Item{m.knownAgent()})
		if err != nil || !slices.Equal(behind, want) {
			t.Fatalf("behind: %v, %v; want %v", behind, err, want)
		}
		m.systemctl("restart", agentUnit)
		m.listens(agentUnit)
	}
}

// TestStrangerAtThePortOfAStoppedUnit: everybody can listen there, and is not taken for
// the service; what runs with another set is.
func TestStrangerAtThePortOfAStoppedUnit(t *testing.T) {
	m := newMachine(t)
	m.renewed(m.knownAgent())
	wrong := func() (*probe.WrongLeafError, error) {
		t.Helper()
		found, err := m.installer.Served(t.Context(), []install.Item{m.knownAgent()})
		if err != nil || len(found) != 1 || found[0].Err == nil {
			t.Fatalf("%+v, %v", found, err)
		}
		var other *probe.WrongLeafError
		errors.As(found[0].Err, &other)
		return other, found[0].Err
	}
	change, err := m.installer.Install(t.Context(), []install.Item{m.knownAgent()})
	m.must(err)
	m.must(change.Close()) // the agent was ended before the restart
	if other, err := wrong(); other == nil {
		t.Errorf("the service runs with another set: %v", err)
	}
	m.systemctl("stop", agentUnit)
	listener, err := net.Listen("tcp", address(agentUnit))
	m.must(err)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	m.must(server.Listener.Close())
	server.Listener, server.Config.ErrorLog = listener, log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	if other, err := wrong(); other != nil || !errors.Is(err, service.ErrNotRunning) || !strings.Contains(err.Error(), "something else serves") {
		t.Errorf("%v", err)
	}
}

// TestTwoUnitsOfOneService is not for us to decide.
func TestTwoUnitsOfOneService(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/systemd/system/keylime-agent.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n")
	m.systemctl("daemon-reload")
	m.systemctl("start", "keylime-agent.service")
	t.Cleanup(func() { m.systemctl("stop", "keylime-agent.service") })
	profile, _ := keylime.Find(keylime.Agent)
	spec := service.Spec{Root: "/", Units: profile.Units}
	if found := m.find(spec); found.Name() != "keylime-agent.service" {
		t.Errorf("found %s, and not the one that runs", found.Name())
	}
	m.start(agentUnit)
	if _, err := service.Find(t.Context(), spec); !errors.Is(err, service.ErrSeveral) {
		t.Errorf("got %v", err)
	}
	spec.Unit = agentUnit
	if found := m.find(spec); found.Name() != agentUnit {
		t.Errorf("found %s", found.Name())
	}
}

// TestSupplementaryGroupsCount for what a unit can read.
func TestSupplementaryGroupsCount(t *testing.T) {
	m := newMachine(t)
	m.dropIn(registrarUnit, "[Service]\nSupplementaryGroups=adm\n")
	found := m.find(service.Spec{Root: "/", Units: []string{registrarUnit}})
	if !slices.Contains(found.Account().Groups, 4) { // adm
		t.Errorf("groups %v", found.Account().Groups)
	}
}

const reloading = "omen-test-reloading.service"

// TestReload tells a unit that can to read its files again, restarts one that cannot,
// and never sends HUP to Keylime, whatever somebody has written into its unit.
func TestReload(t *testing.T) {
	m := newMachine(t)
	const reload = "ExecReload=/bin/sh -c \"kill -HUP $MAINPID\"\n"
	m.write("/run/systemd/system/"+reloading, "[Service]\nExecStart="+part("witnessing")+"\n"+reload)
	t.Cleanup(func() {
		m.systemctl("stop", reloading)
		m.must(os.Remove("/run/systemd/system/" + reloading))
		m.systemctl("daemon-reload")
	})
	m.systemctl("daemon-reload")
	m.systemctl("start", reloading)
	m.await("the witness listens", func() bool { _, err := os.Stat(witnessed); return err == nil })

	found := m.find(service.Spec{Root: "/", Unit: reloading})
	id := m.show(reloading, "InvocationID")
	m.must(found.Reload(t.Context(), service.Reload{}))
	m.await("HUP has come", func() bool { text, err := os.ReadFile(witnessed); return err == nil && string(text) == "hangup\n" })
	if m.show(reloading, "InvocationID") != id {
		t.Error("it was restarted")
	}
	m.must(found.Reload(t.Context(), service.Reload{Command: []string{"/usr/bin/systemctl", "kill", "--signal=USR1", reloading}}))
	m.await("USR1 has come", func() bool {
		text, err := os.ReadFile(witnessed)
		return err == nil && strings.HasSuffix(string(text), "user defined signal 1\n")
	})

	m.must(os.Remove(witnessed))
	m.dropIn(agentUnit, "[Service]\nExecStartPost="+part("witness")+"\n"+reload)
	m.start(agentUnit)
	id = m.show(agentUnit, "InvocationID")
	m.must(m.find(service.Spec{Root: "/", Unit: agentUnit}).Reload(t.Context(), service.Reload{}))
	if m.show(agentUnit, "InvocationID") == id {
		t.Error("the agent was not restarted")
	}
	text, err := os.ReadFile(witnessed)
	if err != nil || !strings.HasPrefix(string(text), "terminated\n") || strings.Contains(string(text), "hangup") {
		t.Errorf("signals in the agent's group: %q, %v", text, err)
	}
}
