// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/internal/doctor"
)

// examine has the installed agent's doctor make one check.
func (m *machine) examine(check string) []doctor.Result {
	m.t.Helper()
	output, err := exec.Command("omen-agent", "--output", "json", "doctor", "--check", check).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	var results []doctor.Result
	if err := json.Unmarshal(output, &results); err != nil {
		m.t.Fatalf("%v: %s", err, output)
	}
	return results
}

// diagnosed wants one result with this status and these words, and returns its remedy.
func (m *machine) diagnosed(check string, status doctor.Status, words string) (remedy string) {
	m.t.Helper()
	results := m.examine(check)
	at := slices.IndexFunc(results, func(r doctor.Result) bool {
		return r.Status == status && strings.Contains(r.About+": "+r.Seen, words)
	})
	if at < 0 {
		m.t.Errorf("%s: no %s with %q in %+v", check, status, words, results)
		return ""
	}
	return results[at].Remedy
}

// pasted does what a remedy says, as an operator does.
func (m *machine) pasted(remedy string) { m.t.Helper(); m.run("sh", "-ec", remedy) }

// lasting has the agent's unit run something that only lasts: these tests are of the unit.
const lasting = "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\n"

// TestDoctorOfUnits has systemd's own answers judged, and each remedy pasted.
func TestDoctorOfUnits(t *testing.T) {
	m := newMachine(t)
	m.installPackage()
	m.write("/etc/omen-agent/root.pem", string(m.ca.RootPEM))
	t.Cleanup(func() { m.must(os.Remove("/etc/omen-agent/root.pem")) })
	m.write(configFile, "[pki]\nanchor = \"/etc/omen-agent/root.pem\"\n[[certificate]]\nname = \"tenant\"\nprofile = \"keylime-tenant\"\ncommon_name = \"tenant.keylime.test\"\n")
	m.dropIn(agentService, lasting)
	t.Cleanup(func() { m.systemctl("stop", agentService) })

	m.pasted(m.diagnosed("agent-service", doctor.Problem, "it is enabled, and does not run"))
	m.diagnosed("agent-service", doctor.OK, "enabled, and active since")
	m.systemctl("disable", agentService)
	m.pasted(m.diagnosed("agent-service", doctor.Warning, "it runs, and will not after the next boot"))
	m.systemctl("disable", "--now", agentService)
	m.pasted(m.diagnosed("agent-service", doctor.Warning, "it is switched off, and nothing else has omen-agent renew"))
	m.diagnosed("agent-service", doctor.OK, "enabled, and active since")
	m.systemctl("disable", "--now", agentService)
	m.must(os.RemoveAll("/etc/systemd/system/" + agentService + ".d"))
	m.systemctl("mask", agentService)
	remedy := m.diagnosed("agent-service", doctor.Warning, "it is masked")
	m.systemctl("unmask", agentService)
	m.dropIn(agentService, lasting)
	m.pasted(remedy)
	m.diagnosed("agent-service", doctor.OK, "enabled, and active since")

	m.diagnosed("unseal-service", doctor.OK, "enabled")
	m.systemctl("disable", unsealService)
	m.pasted(m.diagnosed("unseal-service", doctor.Warning, "after a boot keys are put back by "+agentService))
	m.diagnosed("unseal-service", doctor.OK, "enabled")
}

// TestDoctorOfRestarts has the unit end again and again.
func TestDoctorOfRestarts(t *testing.T) {
	m := newMachine(t)
	m.installPackage()
	m.write(configFile, "")
	m.dropIn(agentService, "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/false\n")
	t.Cleanup(func() { m.systemctl("stop", agentService) })
	m.systemctl("start", "--no-block", agentService)
	m.await("auto-restart", func() bool { return m.show(agentService, "SubState") == "auto-restart" })
	m.diagnosed("agent-service", doctor.Problem, "the last end: exit-code")
	m.dropIn(agentService, "[Service]\nType=exec\nRestartSec=10ms\nExecStart=\nExecStart="+part("fail-until")+" /usr/bin/sleep infinity\n")
	m.systemctl("restart", "--no-block", agentService)
	m.await("three restarts", func() bool { n, err := strconv.Atoi(m.show(agentService, "NRestarts")); return err == nil && n >= 3 })
	m.raiseFlag()
	m.await("active", func() bool { return m.show(agentService, "SubState") == "running" })
	_, forget, _ := strings.Cut(m.diagnosed("agent-service", doctor.Warning, "restarts that nobody asked for"), "forgotten by ")
	m.pasted(forget)
	m.diagnosed("agent-service", doctor.OK, "enabled, and active since")
}

// TestDoctorOfReload: agent.toml changes under units that systemd has read, and under a
// process that runs.
func TestDoctorOfReload(t *testing.T) {
	m := newMachine(t)
	m.installPackage()
	m.must(os.MkdirAll("/srv/ours", 0o755))
	t.Cleanup(func() { m.must(os.RemoveAll("/srv/ours")) })
	m.write(configFile, "")
	m.dropIn(agentService, lasting)
	t.Cleanup(func() { m.systemctl("stop", agentService) })
	m.systemctl("start", agentService)
	m.diagnosed("daemon-reload", doctor.OK, agentService)
	m.diagnosed("daemon-reload", doctor.OK, unsealService)
	m.write(configFile, "[[certificate]]\nname = \"web\"\nprofile = \"general\"\n[certificate.files]\nfolder = \"/srv/ours/omen\"\n")
	later := time.Now().Add(time.Minute)
	m.must(os.Chtimes(configFile, later, later))
	m.diagnosed("daemon-reload", doctor.Warning, agentService+": it, or agent.toml, is newer")
	m.pasted(m.diagnosed("daemon-reload", doctor.Warning, unsealService+": it, or agent.toml, is newer"))
	m.pasted(m.diagnosed("daemon-reload", doctor.Warning, agentService+": it was started before /srv/ours was opened"))
	m.diagnosed("daemon-reload", doctor.OK, agentService)
	m.diagnosed("daemon-reload", doctor.OK, unsealService)
}
