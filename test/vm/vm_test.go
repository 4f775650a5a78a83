// SPDX-License-Identifier: Apache-2.0

//go:build long && amd64

package vm_test

import (
	"context"
	"testing"
	"time"

	"funlab.casa/omen/test/debian"
)

// good is how every unit is after a boot that went well.
var good = map[string]string{debian.AgentService: "active success", debian.UnsealService: "active success", debian.KeylimeAgent: "active success"}

// TestComputer is the life of a host with a TPM behind the kernel's driver, and firmware
// that measures what it boots.
func TestComputer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 15*time.Minute)
	t.Cleanup(cancel)
	m := newMachine(ctx, t)

	t.Log("the first boot: there is nothing yet")
	m.bootAll()
	m.Expect(map[string]string{debian.AgentService: "active success", debian.KeylimeAgent: "active success"})
	first := m.WantServed()
	m.WantStarts(1)
	m.wantReadyFirst()
	m.wantHealth()
	m.acceptOnly(m.booted())

	t.Log("a reboot, OpenBao away: sealed keys come back")
	m.Must(m.Story.World.Bao.Stop())
	m.shutDown()
	m.bootAll()
	m.Expect(good)
	m.WantUnsealedOffline()
	if again := m.WantServed(); !again.Equal(first) {
		t.Error("another certificate is served")
	}
	m.WantStarts(1)
	m.wantReadyFirst()

	t.Log("a sleep past the time of the renewal: it comes with the waking")
	m.Must(m.Story.World.Bao.Start(ctx))
	m.setClock(m.renewal().Add(-left))
	m.sleep(asleep)
	second := m.AwaitAnother(first, soon)
	m.setClock(time.Now())

	t.Log("a TPM that comes while the boot waits for it: nothing was missed")
	m.shutDown()
	m.boot(lateTPM)
	m.awaitState(debian.AgentService, "waits for the TPM", "ActiveState", "inactive")
	m.plug()
	m.wantBooted()
	m.Expect(good)
	m.WantUnsealedOffline()
	m.WantServed()
	m.WantStarts(1)
	m.wantReadyFirst()

	t.Log("a clock that is set past the time of the renewal, while others use the TPM")
	m.othersUse()
	m.setClock(m.renewal().Add(time.Minute))
	third := m.AwaitAnother(second, soon)
	m.setClock(time.Now())
	m.othersEnd()

	t.Log("a TPM that comes when nobody waits for it any more")
	m.Inside("install", "-D", impatient, "/etc/systemd/system/dev-tpmrm0.device.d/impatient.conf")
	m.shutDown()
	m.boot(lateTPM)
	m.Await(debian.AgentService, "no TPM there")
	m.plug()
	m.Await(debian.AgentService, "keys unsealed")
	m.Inside("systemctl", "restart", debian.KeylimeAgent) // Keylime's unit waits for two minutes
	if again := m.WantServed(); !again.Equal(third) {
		t.Error("another certificate is served")
	}
	m.Expect(map[string]string{debian.AgentService: "active success", debian.KeylimeAgent: "active success"})
}
