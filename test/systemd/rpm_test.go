// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// rpmFile is the agent's package of the other format, inside.
const rpmFile = "/opt/omen/omen-agent.rpm"

// TestRPM installs the package with rpm where a preset switches the units on, and where
// one does not, and takes it away while the agent runs. Its dependency, systemd, is in
// dpkg's books alone.
func TestRPM(t *testing.T) {
	const preset, running = "/etc/systemd/system-preset/10-test.preset", "/run/systemd/system/" + agentService + ".d"
	m := newMachine(t)
	m.must(os.MkdirAll("/etc/systemd/system-preset", 0o755))
	t.Cleanup(func() { m.must(os.RemoveAll("/etc/systemd/system-preset")) })
	m.run("rpm", "--query", "--all") // makes its books
	before := m.packaged()
	for word, state := range map[string]string{"enable": "enabled", "disable": "disabled"} {
		m.write(preset, word+" omen-agent*\n")
		m.run("rpm", "--install", "--nodeps", rpmFile)
		m.run("rpm", "--verify", "--nodeps", "omen-agent")
		for _, unit := range []string{agentService, unsealService} {
			m.expect(unit, map[string]string{"LoadState": "loaded", "NeedDaemonReload": "no", "UnitFileState": state})
			m.systemctl("start", unit) // nothing is configured: skipped, which is no failure
			m.expect(unit, map[string]string{"ConditionResult": "no", "Result": "success"})
		}
		m.write(running+"/90-test.conf", "[Unit]\nConditionPathExists=\n[Service]\nType=exec\nWatchdogSec=0\nExecStart=\nExecStart=/bin/sleep infinity\n")
		m.systemctl("daemon-reload")
		m.systemctl("start", agentService)
		m.run("rpm", "--erase", "--nodeps", "omen-agent")
		if state := m.show(agentService, "ActiveState"); state != "inactive" {
			t.Errorf("%s: after removal the unit is %s", word, state)
		}
		m.must(os.RemoveAll(running))
		m.systemctl("daemon-reload")
		m.expect(agentService, map[string]string{"LoadState": "not-found"})
		m.must(os.Remove(preset))
		left := slices.DeleteFunc(without(m.packaged(), before), func(path string) bool { return !strings.Contains(path, "omen") })
		if len(left) > 0 { // beside folders that distributions have, and Debian not
			t.Errorf("%s: left %v", word, left)
		}
	}
}

// TestRPMKeepsCertificates: services read them.
func TestRPMKeepsCertificates(t *testing.T) {
	m := newMachine(t)
	m.run("rpm", "--install", "--nodeps", rpmFile)
	m.renewed(m.item("registrar", "keylime-registrar"))
	before := m.tree()
	if said := m.run("rpm", "--erase", "--nodeps", "omen-agent"); !strings.Contains(said, "/var/lib/omen-agent stays") {
		t.Errorf("rpm does not say that certificates stay: %s", said)
	}
	m.same(before)
}
