// SPDX-License-Identifier: Apache-2.0

//go:build long

package boot_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/nspawn"
)

// good is how every unit is after a boot that went well.
var good = map[string]string{agentService: "active success", unsealService: "active success", keylimeAgent: "active success"}

// TestBoot is a machine's life: its first boot, and boots after power cuts, with OpenBao
// there and away. In each, Keylime's agent starts once, and not before it has something
// to start with.
func TestBoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	t.Cleanup(cancel)
	m := newMachine(ctx, t)

	t.Log("the first boot: there is nothing yet")
	m.powerCycle()
	m.expect(map[string]string{agentService: "active success", keylimeAgent: "active success"})
	first := m.wantServed()
	m.wantStarts(1)
	m.await(agentService, "new certificates are in place")

	t.Log("a reboot, OpenBao away: sealed keys come back, nobody waits")
	m.must(m.story.World.Bao.Stop())
	m.powerCycle()
	m.expect(good)
	if m.held() > 10*time.Second {
		t.Errorf("held for %s", m.held())
	}
	if again := m.wantServed(); !again.Equal(first) {
		t.Error("another certificate is served")
	}
	m.wantStarts(1)
	m.wantUnsealedOffline()

	t.Log("a reboot with a renewal due, OpenBao away: the old certificate can serve")
	m.certs[0].DNS = nil
	m.configure("")
	m.powerCycle()
	m.await(agentService, "the certificates that are in place can serve")
	if again := m.wantServed(); !again.Equal(first) {
		t.Error("another certificate is served")
	}
	m.wantStarts(1)
	if m.held() > time.Minute {
		t.Errorf("held for %s", m.held())
	}
	m.wantSaid("status", "challenge")

	t.Log("a reboot with a renewal due, OpenBao there: it comes first")
	m.must(m.story.World.Bao.Start(ctx))
	m.powerCycle()
	m.await(agentService, "new certificates are in place")
	second := m.wantServed()
	if second.Equal(first) || slices.Contains(second.DNSNames, "localhost") {
		t.Errorf("names %v", second.DNSNames)
	}
	m.wantStarts(1)

	t.Log("systemctl restart: services that run are not held up")
	m.inside("systemctl", "restart", agentService)
	m.expect(good)
	if m.wantServed(); m.starts() != 1 {
		t.Errorf("started %d times", m.starts())
	}

	t.Log("a boot without certificates, OpenBao away: no longer than configured")
	m.must(m.story.World.Bao.Stop())
	m.must(m.Cut())
	m.must(os.RemoveAll(filepath.Join(m.Root(), "var/lib/omen-agent/keylime")))
	m.configure("[boot]\nhold = \"20s\"\n")
	m.must(m.story.Auth.TPM.Reboot())
	m.must(m.Begin())
	m.must(nspawn.Await(ctx, m.FindLeader))
	m.await(agentService, "they waited for certificates as long as is configured")
	if m.held() < 20*time.Second || m.held() > 40*time.Second {
		t.Errorf("held for %s", m.held())
	}
}

func (m *machine) wantStarts(n int) {
	m.t.Helper()
	if got := m.starts(); got != n {
		m.t.Errorf("Keylime's agent started %d times, not %d", got, n)
	}
	if restarts := m.show(keylimeAgent, "NRestarts"); restarts != "0" {
		m.t.Errorf("systemd had to start it %s times again", restarts)
	}
}

// wantUnsealedOffline: the unit that has no network has given the key out.
func (m *machine) wantUnsealedOffline() {
	m.t.Helper()
	said := m.inside("journalctl", "--no-pager", "-b", "-o", "cat", "-u", unsealService)
	if !slices.ContainsFunc(strings.Split(said, "\n"), func(line string) bool { return slices.Equal(strings.Fields(line), []string{"unsealed", "agent"}) }) {
		m.t.Errorf("unsealed: %s", said)
	}
}

// wantSaid wants a word in what a command of the agent says.
func (m *machine) wantSaid(command, word string) {
	m.t.Helper()
	if said := m.inside("omen-agent", command); !strings.Contains(said, word) {
		m.t.Errorf("%s does not say %q:\n%s", command, word, said)
	}
}
