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

	"funlab.casa/omen/test/debian"
	"funlab.casa/omen/test/nspawn"
)

// good is how every unit is after a boot that went well.
var good = map[string]string{debian.AgentService: "active success", debian.UnsealService: "active success", debian.KeylimeAgent: "active success"}

// TestBoot is a machine's life: its first boot, and boots after power cuts, with OpenBao
// there and away. In each, Keylime's agent starts once, and not before it has something
// to start with.
func TestBoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	t.Cleanup(cancel)
	m := newMachine(ctx, t)

	t.Log("the first boot: there is nothing yet")
	m.powerCycle()
	m.Expect(map[string]string{debian.AgentService: "active success", debian.KeylimeAgent: "active success"})
	first := m.WantServed()
	m.WantStarts(1)
	m.Await(debian.AgentService, "new certificates are in place")

	t.Log("a reboot, OpenBao away: sealed keys come back, nobody waits")
	m.Must(m.Story.World.Bao.Stop())
	m.powerCycle()
	m.Expect(good)
	if m.Held() > 10*time.Second {
		t.Errorf("held for %s", m.Held())
	}
	if again := m.WantServed(); !again.Equal(first) {
		t.Error("another certificate is served")
	}
	m.WantStarts(1)
	m.WantUnsealedOffline()

	t.Log("a reboot with a renewal due, OpenBao away: the old certificate can serve")
	m.certs[0].DNS = nil
	m.configure("")
	m.powerCycle()
	m.Await(debian.AgentService, "the certificates that are in place can serve")
	if again := m.WantServed(); !again.Equal(first) {
		t.Error("another certificate is served")
	}
	m.WantStarts(1)
	if m.Held() > time.Minute {
		t.Errorf("held for %s", m.Held())
	}
	m.wantSaid("status", "challenge")

	t.Log("a reboot with a renewal due, OpenBao there: it comes first")
	m.Must(m.Story.World.Bao.Start(ctx))
	m.powerCycle()
	m.Await(debian.AgentService, "new certificates are in place")
	second := m.WantServed()
	if second.Equal(first) || slices.Contains(second.DNSNames, "localhost") {
		t.Errorf("names %v", second.DNSNames)
	}
	m.WantStarts(1)

	t.Log("systemctl restart: services that run are not held up")
	m.Inside("systemctl", "restart", debian.AgentService)
	m.Expect(good)
	if m.WantServed(); m.Starts() != 1 {
		t.Errorf("started %d times", m.Starts())
	}

	t.Log("a boot without certificates, OpenBao away: no longer than configured")
	m.Must(m.Story.World.Bao.Stop())
	m.Must(m.container.Cut())
	m.Must(os.RemoveAll(filepath.Join(m.container.Root(), "var/lib/omen-agent/keylime")))
	m.configure("[boot]\nhold = \"20s\"\n")
	m.Must(m.Story.Auth.TPM.Reboot())
	m.Must(m.container.Begin())
	m.Must(nspawn.Await(ctx, m.container.FindLeader))
	m.Await(debian.AgentService, "they waited for certificates as long as is configured")
	if m.Held() < 20*time.Second || m.Held() > 40*time.Second {
		t.Errorf("held for %s", m.Held())
	}
}

// wantSaid wants a word in what a command of the agent says.
func (m *machine) wantSaid(command, word string) {
	m.T.Helper()
	if said := m.Inside("omen-agent", command); !strings.Contains(said, word) {
		m.T.Errorf("%s does not say %q:\n%s", command, word, said)
	}
}
