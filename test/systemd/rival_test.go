// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/test/world"
)

const seedTimer = "renew-keylime-certs.timer"

// search finds what omen-agent looks for.
func (m *machine) search() []rival.Rival {
	m.t.Helper()
	found, err := rival.Search{Folders: []string{keylime.CertsDir}, Mounts: []string{"pki_int"}, Active: service.ActiveUnits}.Find(m.t.Context())
	m.must(err)
	return found
}

// layRenewal lays the renewal of before Omen, byte for byte. It is never started:
// its timer waits for midnight.
func (m *machine) layRenewal() {
	m.t.Helper()
	r, err := world.ReadSeedRenewal()
	m.must(err)
	m.write(world.SeedScriptFile, string(r.Script))
	m.must(os.Chmod(world.SeedScriptFile, 0o755))
	m.write(world.SeedServiceFile, string(r.Service))
	// Persistent=true would start it at once where it should have run before.
	stamp := "/var/lib/systemd/timers/stamp-" + seedTimer
	m.write(stamp, "")
	m.write(world.SeedTimerFile, string(r.Timer))
	m.systemctl("daemon-reload")
	m.t.Cleanup(func() {
		m.systemctl("disable", "--now", seedTimer)
		for _, path := range []string{world.SeedScriptFile, world.SeedServiceFile, world.SeedTimerFile, stamp} {
			m.must(os.Remove(path))
		}
		m.systemctl("daemon-reload")
	})
}

// TestTimerOfBefore has systemd enable the timer, start it, and do both; and does what
// the refusal says.
func TestTimerOfBefore(t *testing.T) {
	m := newMachine(t)
	if found := m.search(); len(found) != 0 {
		t.Fatalf("on a machine with Keylime alone: %v", found)
	}
	m.layRenewal()
	if err := rival.Refusal(m.search()); err != nil {
		t.Errorf("not enabled: %v", err)
	}
	for _, on := range [][]string{{"enable", "--now"}, {"enable"}, {"start"}} {
		m.systemctl(append(on, seedTimer)...)
		err := rival.Refusal(m.search())
		if !errors.Is(err, rival.ErrActive) || strings.Contains(err.Error(), "<your-token>") {
			t.Fatalf("after %v: %v", on, err)
		}
		t.Log(err)
		m.run("/usr/bin/env", strings.Fields(remedy.Of(err))...)
		m.expect(seedTimer, map[string]string{"ActiveState": "inactive", "UnitFileState": "disabled"})
		if err := rival.Refusal(m.search()); err != nil {
			t.Fatalf("after %v, and what the refusal says: %v", on, err)
		}
	}
}

// TestTransientTimer is one that no file below /etc says anything of.
func TestTransientTimer(t *testing.T) {
	m := newMachine(t)
	m.run("systemd-run", "--unit=copies", "--on-calendar=2100-01-01", "/bin/cp", "/root/verifier.crt", keylime.CertsDir+"/")
	err := rival.Refusal(m.search())
	if !errors.Is(err, rival.ErrActive) || remedy.Of(err) != "systemctl stop copies.timer" {
		m.systemctl("stop", "copies.timer")
		t.Fatalf("%v, hint %q", err, remedy.Of(err))
	}
	m.systemctl("stop", "copies.timer")
	if err := rival.Refusal(m.search()); err != nil {
		t.Error(err)
	}
}

// TestOwnUnitsAreNoRivals keeps its own timer.
func TestOwnUnitsAreNoRivals(t *testing.T) {
	m := newMachine(t)
	for name, text := range map[string]string{
		"omen-renew.timer":   "[Timer]\nOnCalendar=2100-01-01\n[Install]\nWantedBy=timers.target\n",
		"omen-renew.service": "[Service]\nType=oneshot\nExecStart=/usr/local/bin/omen-agent renew\nReadWritePaths=" + keylime.CertsDir + "\n",
	} {
		path := filepath.Join("/etc/systemd/system", name)
		m.write(path, text)
		t.Cleanup(func() { m.must(os.Remove(path)) })
	}
	m.systemctl("daemon-reload")
	m.systemctl("enable", "--now", "omen-renew.timer")
	t.Cleanup(func() { m.systemctl("disable", "--now", "omen-renew.timer") })
	if found := m.search(); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}
