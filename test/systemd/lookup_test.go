// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/service"
)

// TestUnitsAreFound looks every unit up as install does.
func TestUnitsAreFound(t *testing.T) {
	m := newMachine(t)
	for _, want := range []struct{ profile, unit, user, program string }{
		{keylime.Verifier, verifierUnit, "keylime", "/usr/bin/keylime_verifier"},
		{keylime.Registrar, registrarUnit, "keylime", "/usr/bin/keylime_registrar"},
		{keylime.Agent, agentUnit, "root", "/usr/bin/keylime_agent"},
	} {
		profile, _ := keylime.Find(want.profile)
		found := m.find(service.Spec{Root: "/", Units: profile.Units})
		if found.Name() != want.unit || found.Account().Name != want.user || !slices.Equal(found.Executables(), []string{want.program}) {
			t.Errorf("%s: found %s, user %s, %v", want.unit, found.Name(), found.Account().Name, found.Executables())
		}
	}
}

func (m *machine) find(spec service.Spec) service.Controller {
	m.t.Helper()
	found, err := service.Find(m.t.Context(), spec)
	m.must(err)
	m.t.Cleanup(found.Close)
	return found
}

// TestSecondNameIsTaken finds the unit of a distribution that writes it with a
// hyphen.
func TestSecondNameIsTaken(t *testing.T) {
	m := newMachine(t)
	m.systemctl("mask", "--runtime", agentUnit)
	t.Cleanup(func() { m.systemctl("unmask", "--runtime", agentUnit) })
	m.write("/etc/systemd/system/keylime-agent.service", "[Service]\nExecStart=/usr/bin/keylime_agent\n")
	m.systemctl("daemon-reload")
	m.systemctl("start", "keylime-agent.service")
	t.Cleanup(func() { m.systemctl("stop", "keylime-agent.service") })
	m.listens(agentUnit)
	m.renewed(m.agentItem())
	m.expect("keylime-agent.service", map[string]string{"ActiveState": "active"})
	if m.served(agentUnit) != m.installed("agent") {
		t.Error("the agent does not serve what is installed")
	}
}

// useless are units that nothing can be done with.
var useless = map[string]struct {
	prepare func(m *machine)
	unit    string // configured
	want    []string
}{
	"masked": {
		func(m *machine) {
			m.systemctl("mask", "--runtime", agentUnit)
			m.t.Cleanup(func() { m.systemctl("unmask", "--runtime", agentUnit) })
		},
		"", []string{agentUnit + " is masked"},
	},
	"masked, by name": {
		func(m *machine) {
			m.systemctl("mask", "--runtime", agentUnit)
			m.t.Cleanup(func() { m.systemctl("unmask", "--runtime", agentUnit) })
		},
		agentUnit, []string{agentUnit, "masked"},
	},
	"unknown, by name":  {func(*machine) {}, "keylime_agnet.service", []string{"keylime_agnet.service", "not-found"}},
	"no name of a unit": {func(*machine) {}, "keylime_agent", []string{"keylime_agent"}},
	"cannot be read": {
		func(m *machine) { m.dropIn(agentUnit, "[Service]\nExecStart=\n") },
		"", []string{agentUnit, "bad-setting"},
	},
}

func TestUselessUnitIsRefused(t *testing.T) {
	for name, c := range useless {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.start(agentUnit)
			c.prepare(m)
			agent := m.agentItem()
			agent.Service = install.Service{Unit: c.unit}
			m.refuses(agent, func(err error) bool {
				return !slices.ContainsFunc(c.want, func(word string) bool { return !strings.Contains(err.Error(), word) })
			})
		})
	}
}

// refuses installs what must be refused before anything is written.
func (m *machine) refuses(item install.Item, want func(error) bool) {
	m.t.Helper()
	before, id := m.tree(), m.show(agentUnit, "InvocationID")
	o := m.renew(item)
	if o.err == nil || !want(o.err) {
		m.t.Fatalf("got %v", o.err)
	}
	m.t.Log(o.err)
	m.same(before)
	if m.show(agentUnit, "InvocationID") != id {
		m.t.Error("the agent was restarted")
	}
}

// overriding are the ways in which a unit gets a variable that counts for more
// than our drop-in.
var overriding = map[string]func(m *machine, assignment string){
	"Environment=": func(m *machine, assignment string) {
		m.dropIn(agentUnit, "[Service]\nEnvironment=A=1 \""+assignment+"\"\n")
	},
	"EnvironmentFile=": func(m *machine, assignment string) {
		m.write("/etc/default/keylime_agent", "# set by hand\nA=1\n  "+assignment+"\n")
		m.dropIn(agentUnit, "[Service]\nEnvironmentFile=-/etc/default/keylime_nonexistent\nEnvironmentFile=-/etc/default/keylime_*\n")
	},
}

func TestOverridingVariableIsRefused(t *testing.T) {
	for name, set := range overriding {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.start(agentUnit)
			set(m, "KEYLIME_AGENT_SERVER_CERT=/etc/ssl/own.crt")
			m.refuses(m.agentItem(), func(err error) bool {
				return errors.Is(err, keylime.ErrOverridden) && strings.Contains(err.Error(), "KEYLIME_AGENT_SERVER_CERT")
			})
		})
		t.Run(name+", another variable", func(t *testing.T) {
			m := newMachine(t)
			m.start(agentUnit)
			set(m, "KEYLIME_AGENT_UUID=d432fbb3-d2f1-4a97-9ef7-75bd81c00001")
			m.renewed(m.agentItem())
		})
	}
}
