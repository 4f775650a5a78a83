// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
)

var allUnits = []string{verifierUnit, registrarUnit, agentUnit}

// all is one fresh certificate for everything that runs here.
func (m *machine) all() []install.Item {
	m.t.Helper()
	return []install.Item{
		m.item("verifier", keylime.Verifier), m.item("verifier-client", keylime.VerifierClient),
		m.item("registrar", keylime.Registrar), m.item("tenant", keylime.Tenant), m.agentItem(),
	}
}

// TestUnitsServeWhatIsInstalled takes over three units that run as Keylime ships
// them, with not a word of configuration.
func TestUnitsServeWhatIsInstalled(t *testing.T) {
	m := newMachine(t)
	m.dropIn(verifierUnit, "[Service]\nExecStartPost="+part("witness")+"\n")
	m.start(allUnits...)
	before := map[string]string{}
	var old []string
	for _, unit := range allUnits {
		before[unit] = m.show(unit, "MainPID")
		old = append(old, m.processes(unit)...)
	}

	m.renewed(m.all()...)

	for unit, name := range map[string]string{verifierUnit: "verifier", registrarUnit: "registrar", agentUnit: "agent"} {
		m.expect(unit, map[string]string{"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0"})
		if now := m.show(unit, "MainPID"); now == before[unit] || now == "0" {
			t.Errorf("%s: MainPID was %s, is %s", unit, before[unit], now)
		}
		if got, want := m.served(unit), m.installed(name); got != want {
			t.Errorf("%s serves %s, installed is %s", unit, got, want)
		}
		m.ownedByKeylime("/etc/keylime/certs/" + name + ".key")
	}
	m.replacedWhole(old)
	m.inOrder(registrarUnit, verifierUnit, agentUnit)
	m.renewsOneAlone()
}

// ownedByKeylime looks at a key: it belongs to the unit's User=, or to run_as.
func (m *machine) ownedByKeylime(path string) {
	m.t.Helper()
	info, err := os.Stat(path)
	m.must(err)
	owner, err := user.Lookup("keylime")
	m.must(err)
	if uid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid)); uid != owner.Uid || info.Mode().Perm() != 0o600 {
		m.t.Errorf("%s: user %s, mode %o", path, uid, info.Mode().Perm())
	}
}

// replacedWhole looks for processes from before the restart, and at what the
// one among them that notes its signals was told. (It is not a child of the
// verifier's main process, which does not hand signals on.)
func (m *machine) replacedWhole(old []string) {
	m.t.Helper()
	if len(old) < 5 {
		m.t.Errorf("only %d processes ran before: the verifier alone has more", len(old))
	}
	for _, pid := range old {
		if alive(pid) {
			m.t.Errorf("process %s has survived: %s", pid, m.run("cat", "/proc/"+pid+"/cmdline"))
		}
	}
	signals, err := os.ReadFile(witnessed)
	m.must(err)
	if string(signals) != "terminated\n" {
		m.t.Errorf("signals in the verifier's group: %q", signals)
	}
	if now := m.processes(verifierUnit); !slices.Contains(now, m.show(verifierUnit, "MainPID")) {
		m.t.Errorf("processes %v are not the verifier", now)
	}
}

// inOrder compares when units became active.
func (m *machine) inOrder(units ...string) {
	m.t.Helper()
	var last int64
	for _, unit := range units {
		since, err := strconv.ParseInt(m.show(unit, "ActiveEnterTimestampMonotonic"), 10, 64)
		m.must(err)
		if since <= last {
			m.t.Errorf("%s became active at %d, the one before it at %d", unit, since, last)
		}
		last = since
	}
}

// renewsOneAlone renews the agent's certificate: nobody else is disturbed.
func (m *machine) renewsOneAlone() {
	m.t.Helper()
	ids := map[string]string{}
	for _, unit := range allUnits {
		ids[unit] = m.show(unit, "InvocationID")
	}
	items := m.all()
	for at := range items {
		if items[at].Profile != keylime.Agent {
			items[at].Chain, items[at].Key, items[at].CA = nil, nil, nil
		}
	}
	m.renewed(items...)
	for _, unit := range allUnits {
		if changed := m.show(unit, "InvocationID") != ids[unit]; changed != (unit == agentUnit) {
			m.t.Errorf("%s: restarted: %v", unit, changed)
		}
	}
	if got, want := m.served(agentUnit), m.installed("agent"); got != want {
		m.t.Errorf("the agent serves %s, installed is %s", got, want)
	}
}

// TestStoppedUnitIsStarted installs before the services have ever run.
func TestStoppedUnitIsStarted(t *testing.T) {
	m := newMachine(t)
	agent := m.knownAgent()
	m.renewed(agent)
	m.expect(agentUnit, map[string]string{"ActiveState": "active"})
	if m.served(agentUnit) != m.installed("agent") {
		t.Error("the agent does not serve what is installed")
	}
}

// TestStopThatHangs has a process in the unit that ignores TERM, as Keylime's
// own do in the moments of their start. TimeoutSec is 60 s.
func TestStopThatHangs(t *testing.T) {
	m := newMachine(t)
	m.dropIn(agentUnit, "[Service]\nExecStartPost="+part("stubborn")+"\n")
	m.start(agentUnit)
	old := m.processes(agentUnit)
	if o := m.renew(m.agentItem()); o.err != nil || o.took > 30*time.Second {
		t.Fatalf("%v after %s; roll back: %v", o.err, o.took, o.back)
	}
	for _, pid := range old {
		if alive(pid) {
			t.Errorf("process %s has survived", pid)
		}
	}
	if m.served(agentUnit) != m.installed("agent") {
		t.Error("the agent does not serve what is installed")
	}
}

// TestWithoutBusDaemon works where there is systemd and no dbus-daemon.
func TestWithoutBusDaemon(t *testing.T) {
	m := newMachine(t)
	m.start(agentUnit)
	m.systemctl("stop", "dbus.socket", "dbus.service")
	t.Cleanup(func() { m.systemctl("start", "dbus.socket") })
	if _, err := os.Stat("/run/dbus/system_bus_socket"); err == nil && strings.HasPrefix(m.show("dbus.service", "ActiveState"), "active") {
		t.Fatal("the bus is still there")
	}
	m.renewed(m.agentItem())
	if m.served(agentUnit) != m.installed("agent") {
		t.Error("the agent does not serve what is installed")
	}
}
