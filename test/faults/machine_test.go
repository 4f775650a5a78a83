// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

const stateDir = "/var/lib/omen-agent"

// A machine is a host with a line to OpenBao and a lead to its TPM.
type machine struct {
	*world.Host
	lab    *lab
	line   *line
	lead   *lead
	config string // agent.toml
	ttl    string // that it asks for

	daemon *world.Daemon
	before state // what was there before the fault
}

// state is what a host has: files of both sets, and what it serves.
type state struct {
	served       *x509.Certificate
	agent, other *x509.Certificate // installed
	generation   string
}

func (m *machine) state(ctx context.Context, t *testing.T) (s state) {
	t.Helper()
	s.served = check(m.lab.World.Served(ctx, m.IP+":9002"))(t)
	s.agent = check(m.Installed("agent"))(t)
	block, _ := pem.Decode(check(m.ReadFile("/etc/web/omen/web.crt"))(t))
	s.other = check(x509.ParseCertificate(block.Bytes))(t)
	s.generation = check(m.Readlink(stateDir + "/keylime/current"))(t)
	return s
}

// change makes a renewal due: agent.toml wants certificates of another length.
func (m *machine) change(t *testing.T) {
	t.Helper()
	next := map[string]string{"24h": "23h", "23h": "24h"}[m.ttl]
	m.config = strings.Replace(m.config, fmt.Sprintf("ttl = %q", m.ttl), fmt.Sprintf("ttl = %q", next), 1)
	m.ttl = next
	must(t, m.WriteFile(world.AgentConfig, []byte(m.config), 0o644))
}

// run remembers what is there and starts omen-agent run, which renews at once.
func (m *machine) run(ctx context.Context, t *testing.T) {
	t.Helper()
	m.before = m.state(ctx, t)
	m.change(t)
	m.daemon = check(m.StartDaemon(ctx))(t)
}

// end ends omen-agent run, which must not have ended.
func (m *machine) end(ctx context.Context, t *testing.T) {
	t.Helper()
	if code, err := m.daemon.Terminate(ctx); code != 0 || err != nil {
		t.Errorf("omen-agent run: exit code %d, %v", code, err)
	}
}

// await waits until the log of omen-agent run holds a text.
func (m *machine) await(ctx context.Context, t *testing.T, longest time.Duration, want string) {
	t.Helper()
	must(t, m.AwaitSaid(ctx, longest, want))
}

// wantUnchanged wants everything as it was before the fault.
func (m *machine) wantUnchanged(ctx context.Context, t *testing.T) {
	t.Helper()
	now := m.state(ctx, t)
	if !now.served.Equal(m.before.served) || !now.agent.Equal(m.before.agent) || !now.other.Equal(m.before.other) || now.generation != m.before.generation {
		t.Errorf("something has changed: %s is current, not %s", now.generation, m.before.generation)
	}
}

// wantRenewed wants new certificates in both sets, and served.
func (m *machine) wantRenewed(ctx context.Context, t *testing.T) {
	t.Helper()
	now := m.state(ctx, t)
	m.wantNew(t, now)
	if !now.served.Equal(now.agent) {
		t.Errorf("%x is served, and %x installed", now.served.SerialNumber, now.agent.SerialNumber)
	}
	if failure := m.failure(ctx, t); failure != nil {
		t.Errorf("status still says %+v", failure)
	}
	m.wantNothingLeft(ctx, t)
}

// wantNew wants new certificates in both sets.
func (m *machine) wantNew(t *testing.T, now state) {
	t.Helper()
	if now.agent.Equal(m.before.agent) || now.other.Equal(m.before.other) {
		t.Error("a certificate is the old one")
	}
}

// failure is what the last attempt failed with.
type failure struct{ Step, Error string }

// failure is what status says of the last attempt.
func (m *machine) failure(ctx context.Context, t *testing.T) *failure {
	t.Helper()
	var said struct{ Failure *failure }
	must(t, json.Unmarshal([]byte(check(m.Must(ctx, "/usr/bin/omen-agent", "--output", "json", "status"))(t).Stdout), &said))
	return said.Failure
}

// wantFailed wants one of these steps in the status, and the host as it was.
func (m *machine) wantFailed(ctx context.Context, t *testing.T, steps ...string) {
	t.Helper()
	if said := m.failure(ctx, t); said == nil || !slices.Contains(steps, said.Step) {
		t.Errorf("status says %+v, none of the steps %v", said, steps)
	}
	m.wantUnchanged(ctx, t)
}

// wantNothingLeft looks for what an attempt may leave, in the TPM and on the disk.
func (m *machine) wantNothingLeft(ctx context.Context, t *testing.T) {
	t.Helper()
	if left, err := m.lead.left(); err != nil || left > 0 {
		t.Errorf("%d objects or sessions are left in the TPM: %v", left, err)
	}
	for name := range strings.Lines(check(m.Must(ctx, "find", stateDir, "/run/omen-agent", "/etc/keylime", "/etc/web"))(t).Stdout) {
		if strings.Contains(base(name), ".new") || strings.Contains(base(name), ".json-") || strings.HasPrefix(base(name), "refused-") {
			t.Errorf("left on the disk: %s", name)
		}
	}
	for _, folder := range []string{stateDir + "/keylime", stateDir + "/web", "/run/omen-agent/keylime", "/run/omen-agent/web"} {
		generations := 0
		for _, entry := range check(m.ReadDir(folder))(t) {
			if strings.HasPrefix(entry.Name(), "gen-") {
				generations++
			}
		}
		if generations > 2 {
			t.Errorf("%d generations in %s", generations, folder)
		}
	}
}
