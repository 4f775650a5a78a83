// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"os"
	"testing"
	"time"
)

// TestRestartWhileTheAgentStarts: a service that is ordered after the agent's unit is
// restarted, and comes back, also while systemd has a job for that unit: one that starts
// for long, as an agent does that holds a boot, or is stopped in the middle of a renewal.
func TestRestartWhileTheAgentStarts(t *testing.T) {
	m := newMachine(t)
	const unit = "/etc/systemd/system/" + agentService
	m.write(unit, "[Unit]\nBefore="+registrarUnit+"\n[Service]\nType=oneshot\nExecStart=/bin/sleep 300\n")
	t.Cleanup(func() {
		m.systemctl("stop", agentService)
		m.must(os.Remove(unit))
		m.systemctl("daemon-reload")
	})
	m.systemctl("daemon-reload")
	m.renewed(m.item("registrar", "keylime-registrar"))
	m.systemctl("start", "--no-block", agentService)
	m.await("the agent's unit starts", func() bool { return m.show(agentService, "ActiveState") == "activating" })
	began := time.Now()
	m.renewed(m.item("registrar", "keylime-registrar"))
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if state := m.show(agentService, "ActiveState"); state != "activating" {
		t.Errorf("the agent's unit is %s", state)
	}
	m.expect(registrarUnit, map[string]string{"ActiveState": "active"})
}
