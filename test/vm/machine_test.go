// SPDX-License-Identifier: Apache-2.0

//go:build long && amd64

package vm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/debian"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

// The computer's network: QEMU passes on what goes to the world's other addresses, and
// what comes to port to Keylime's agent. That is one of the loopback: what comes from
// elsewhere keeps its sender, which would be the computer's own address.
const (
	port    = "127.0.0.1:9002"
	network = "net=10.10.2.64/28,host=10.10.2.65,dns=10.10.2.66,hostfwd=tcp:" + port + "-" + world.AuthIP + ":9002"
	link    = `[Match]
Type=ether
[Network]
Address=` + world.AuthIP + `/28
Gateway=10.10.2.65
`
)

// systemd is process 1. lateTPM, in its place, takes the TPM's driver away before there
// is a systemd, as if the driver came later, and becomes it; driver gives it back.
const (
	systemd = "init=/lib/systemd/systemd"
	lateTPM = "init=/usr/local/sbin/late-tpm initcall_blacklist=init_ima" // IMA would hold the TPM's name
	late    = `#!/bin/sh
mount -t sysfs sysfs /sys && echo MSFT0101:00 >/sys/bus/acpi/drivers/tpm_crb/unbind && umount /sys
exec /lib/systemd/systemd
`
	// impatient is a drop-in for the TPM's unit, so that a boot waits seconds for it, and
	// not a minute and a half.
	impatient = "/usr/local/share/impatient.conf"
	driver    = `echo MSFT0101:00 >/sys/bus/acpi/drivers/tpm_crb/bind`
)

// A machine is the host auth of the story, on a computer.
type machine struct {
	*debian.Host
	computer *computer
}

// newMachine tells the story until Keylime runs on spire, and installs the machine. It is
// known by its TPM, and not by what it boots, which nobody knows yet.
func newMachine(ctx context.Context, t *testing.T) *machine {
	t.Helper()
	m := &machine{}
	m.Host = debian.NewHost(ctx, t, port, 4*time.Minute, func() error {
		if m.computer == nil {
			return nil
		}
		return m.computer.cut()
	})
	m.enrol()
	m.install()
	return m
}

// enrol takes the host's PCR digest off the record, and has each login's event log judged.
func (m *machine) enrol() {
	m.T.Helper()
	id, err := m.Story.Auth.Identify(m.Context)
	m.Must(err)
	m.write("auth/tpm/host/auth", map[string]any{"tpm_ids": []string{id.TPMID}, "roles": []string{world.AgentRole}, "pcr_digests": []string{}})
	m.write("auth/tpm/role/"+world.AgentRole, map[string]any{"secure_boot": "monitor"})
}

func (m *machine) write(path string, data map[string]any) {
	m.T.Helper()
	_, err := m.Story.World.Bao.Write(m.Context, path, data)
	m.Must(err)
}

// install makes a computer with everything that packages bring, and what an operator
// writes. Its TPM is that of the host.
func (m *machine) install() {
	m.T.Helper()
	tools, auth := m.Story.World.Tools, m.Story.Auth
	dir := m.T.TempDir()
	root := debian.Root(filepath.Join(dir, "root"))
	m.Must(root.Unpack(m.Context, tools.Module, "debian-vm.tar"))
	standin, err := tools.Program("standin")
	m.Must(err)
	program, err := os.ReadFile(standin)
	m.Must(err)
	for name, text := range map[string]string{
		world.AgentConfig:                     m.configuration(),
		"/etc/hostname":                       auth.Name + "\n",
		"/etc/systemd/network/10-lan.network": link,
		"/usr/bin/keylime_agent":              string(program),
		"/usr/local/sbin/late-tpm":            late,
		impatient:                             "[Unit]\nJobRunningTimeoutSec=5s\n",
	} {
		m.Must(root.Write(name, text))
	}
	m.Must(root.Chroot(m.Context, "chmod", "0755", "/usr/bin/keylime_agent", "/usr/local/sbin/late-tpm"))
	m.Must(root.Chroot(m.Context, "systemctl", "enable", "systemd-networkd.service"))
	m.Must(root.Lay(m.Context, tools, auth))
	m.Must(auth.TPM.Stop())
	m.computer, err = newComputer(m.Context, dir, string(root), auth.TPM.State(), network)
	m.Must(err)
	m.Machine = m.computer
	m.Must(os.RemoveAll(string(root)))
}

// configuration is agent.toml: with the kernel's TPM and the firmware's event log, where
// they are by default.
func (m *machine) configuration() string {
	certs := world.AuthCertificates()
	certs[0].Service = nil // systemd knows
	text := m.Story.Auth.AgentTOML(certs)
	for _, other := range []string{fmt.Sprintf("device    = %q\n", m.Story.Auth.TPM.Device()), "event_log = \"none\"\n"} {
		if !strings.Contains(text, other) {
			m.T.Fatalf("agent.toml has no %s", other)
		}
		text = strings.Replace(text, other, "", 1)
	}
	return text
}

// boot switches on.
func (m *machine) boot(process1 string) {
	m.T.Helper()
	began := time.Now()
	m.Must(m.computer.boot(m.Context, process1))
	m.T.Logf("answers after %.0f s (emulated: %v)", time.Since(began).Seconds(), m.computer.emulated)
}

// bootAll switches on and waits until the boot is done.
func (m *machine) bootAll() {
	m.T.Helper()
	m.boot(systemd)
	m.wantBooted()
}

// wantBooted waits until all jobs of the boot are done, and wants them all to be done
// well: none waited for a device in vain, none was left out because jobs wait for each
// other.
func (m *machine) wantBooted() {
	m.T.Helper()
	if state := m.Inside("systemctl", "is-system-running", "--wait"); state != "running" {
		m.T.Errorf("the system is %s:\n%s", state, m.Inside("systemctl", "--no-pager", "--failed"))
	}
	said := m.Inside("journalctl", "--no-pager", "-b", "-o", "cat", "_PID=1")
	for _, wrong := range []string{"ordering cycle", "Timed out waiting for device"} {
		if strings.Contains(said, wrong) {
			m.T.Errorf("systemd says %q:\n%s", wrong, said)
		}
	}
}

// shutDown shuts the machine down as for a reboot.
func (m *machine) shutDown() {
	m.T.Helper()
	m.Inside("systemctl", "reboot")
	m.Must(m.computer.awaitOff())
}

// setClock sets the machine's clock; that of the rest of the world, and the one that
// goes on while the machine sleeps, stay.
func (m *machine) setClock(t time.Time) {
	m.T.Helper()
	m.Inside("date", "--utc", "--set", "@"+strconv.FormatInt(t.Unix(), 10))
}
