// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/test/nspawn"
)

// badStarts are ways in which a unit does not come back, each for one start, so
// that the way back is open.
var badStarts = map[string]struct {
	unit, name, profile string
	dropIn              string
	outage              time.Duration
	want                func(error) bool
}{
	"the start job fails": {
		verifierUnit, "verifier", keylime.Verifier,
		"ExecStartPre=+" + part("fail-once"), 0,
		func(err error) bool {
			return strings.Contains(err.Error(), "restart "+verifierUnit+": job failed")
		},
	},
	"the service dies after its start": {
		registrarUnit, "registrar", keylime.Registrar,
		"ExecStart=\nExecStart=+" + part("fail-once") + " /usr/bin/keylime_registrar", 0,
		func(err error) bool { return errors.Is(err, service.ErrNotRunning) },
	},
	"the start hangs": {
		agentUnit, "agent", keylime.Agent,
		"ExecStartPre=" + part("hang-once"), 3 * time.Second,
		func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
	},
}

func TestBadStartIsRolledBack(t *testing.T) {
	for name, c := range badStarts {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.installer.Outage = c.outage
			m.dropIn(c.unit, "[Service]\n"+c.dropIn+"\n")
			if c.unit == agentUnit {
				m.start(c.unit)
			}
			m.renewed(m.item(c.name, c.profile))
			before, serial := m.tree(), m.served(c.unit)

			m.raiseFlag()
			o := m.renew(m.item(c.name, c.profile))
			if o.err == nil || !c.want(o.err) {
				t.Fatalf("got %v", o.err)
			}
			t.Logf("after %s: %v", o.took.Round(time.Millisecond), o.err)
			if o.took > 30*time.Second {
				t.Errorf("the error took %s: RestartSec is 120 s, the outage may be 55 s", o.took)
			}
			if o.back != nil {
				t.Fatalf("the way back failed: %v", o.back)
			}
			if m.served(c.unit) != serial || m.installed(c.name) != serial {
				t.Error("the old certificate is not back")
			}
			m.expect(c.unit, map[string]string{"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0", "Job": ""})
			m.same(before)
		})
	}
}

// same compares what is on disk, but for the set that was refused: it is kept to look
// at.
func (m *machine) same(before map[string]string) {
	m.t.Helper()
	after := m.tree()
	for path, text := range before {
		if after[path] != text {
			m.t.Errorf("%s changed", path)
		}
	}
	for path := range after {
		if _, was := before[path]; !was && !strings.Contains(path, "/refused-") {
			m.t.Errorf("%s is left", path)
		}
	}
}

// TestRollBackIsNotRateLimited fails faster than a unit may be started: systemd
// would refuse the sixth start in ten seconds.
func TestRollBackIsNotRateLimited(t *testing.T) {
	m := newMachine(t)
	m.dropIn(agentUnit, "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=5\n[Service]\nExecStartPre=+"+part("fail-once")+"\n")
	m.start(agentUnit)
	m.renewed(m.agentItem())
	serial := m.served(agentUnit)
	for round := range 4 {
		m.raiseFlag()
		if o := m.renew(m.agentItem()); o.err == nil || o.back != nil {
			t.Fatalf("round %d: %v; roll back: %v", round, o.err, o.back)
		}
		if m.served(agentUnit) != serial {
			t.Fatalf("round %d: the old certificate is not back", round)
		}
	}
	m.renewed(m.agentItem())
}

// TestUnitThatDidNotRun is left as it was when its start fails.
func TestUnitThatDidNotRun(t *testing.T) {
	const failing = "[Service]\nExecStartPre=/bin/false\n"
	t.Run("stopped", func(t *testing.T) {
		m := newMachine(t)
		m.dropIn(agentUnit, failing)
		m.failsAndComesBack()
		m.expect(agentUnit, map[string]string{"ActiveState": "inactive", "Job": ""})
	})
	t.Run("waits for its next start", func(t *testing.T) {
		m := newMachine(t)
		m.dropIn(agentUnit, failing)
		m.startInVain(agentUnit)
		m.failsAndComesBack()
		m.expect(agentUnit, map[string]string{"ActiveState": "activating", "SubState": "auto-restart"})
	})
}

// failsAndComesBack installs where the agent cannot start.
func (m *machine) failsAndComesBack() {
	m.t.Helper()
	before := m.tree()
	agent := m.knownAgent()
	o := m.renew(agent)
	if o.err == nil {
		m.t.Fatal("no error")
	}
	m.t.Logf("%v; roll back: %v", o.err, o.back)
	m.same(before)
}

// startInVain starts a unit that then waits 120 s for the next try.
func (m *machine) startInVain(unit string) {
	m.t.Helper()
	m.systemctl("start", "--no-block", unit)
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	m.must(nspawn.Await(ctx, func() error {
		if state := m.show(unit, "SubState"); state != "auto-restart" {
			return errors.New(unit + " is " + state)
		}
		return nil
	}))
}

// TestUnitThatWaitsIsStartedAtOnce mends what kept a service from starting: its
// RestartSec is not waited for.
func TestUnitThatWaitsIsStartedAtOnce(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/keylime/agent.conf.d/10-before.conf", "[agent]\nserver_cert = \"/nonexistent\"\n")
	m.startInVain(agentUnit)
	agent := m.knownAgent()
	m.renewed(agent)
	m.expect(agentUnit, map[string]string{"ActiveState": "active", "Result": "success"})
	if m.served(agentUnit) != m.installed("agent") {
		t.Error("the agent does not serve what is installed")
	}
}

// TestRollBackAfterTheEnd is told to end (SIGTERM at omen-agent) while a
// restart is under way.
func TestRollBackAfterTheEnd(t *testing.T) {
	m := newMachine(t)
	m.dropIn(agentUnit, "[Service]\nExecStartPre="+part("hang-once")+"\n")
	m.start(agentUnit)
	m.renewed(m.agentItem())
	serial := m.served(agentUnit)

	m.raiseFlag()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	change, err := m.installer.Install(ctx, []install.Item{m.agentItem()})
	m.must(err)
	timer := time.AfterFunc(time.Second, cancel)
	defer timer.Stop()
	if err := change.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := change.RollBack(ctx); err != nil {
		t.Errorf("the way back failed: %v", err)
	}
	m.must(change.Close())
	m.expect(agentUnit, map[string]string{"ActiveState": "active", "SubState": "running"})
	if m.served(agentUnit) != serial {
		t.Error("the old certificate is not back")
	}
}
