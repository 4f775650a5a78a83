// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/test/testca"
)

// sandboxKey is set where this binary runs as the process of a unit of the package.
const sandboxKey = "OMEN_TEST_SANDBOX"

// runs has a unit of the package run a test of this binary instead of the agent, in the
// sandbox as it is shipped. Type=exec: until a unit is started, those that come after it
// cannot be restarted.
func (m *machine) runs(unit, test string) {
	m.t.Helper()
	m.write("/etc/systemd/system/"+unit+".d/90-test.conf", `[Service]
Type=exec
RemainAfterExit=no
Restart=no
WatchdogSec=0
Environment=`+sandboxKey+`=1 `+insideKey+`=1
ExecStart=
ExecStart=`+program+` -test.v -test.run=^`+test+`$
`)
	m.systemctl("daemon-reload")
	m.systemctl("start", unit)
	m.await(unit+" ends", func() bool { state := m.show(unit, "ActiveState"); return state == "inactive" || state == "failed" })
	m.expect(unit, map[string]string{"Result": "success"})
	invocation := "_SYSTEMD_INVOCATION_ID=" + m.show(unit, "InvocationID")
	m.await("the journal says that "+test+" passed", func() bool {
		return strings.Contains(m.run("journalctl", "--no-pager", invocation), "--- PASS: "+test)
	})
}

// sandboxed reports that this is the process of the unit.
func sandboxed() bool { return os.Getenv(sandboxKey) != "" }

// sandboxConfig has what the unit must leave open: Keylime's folder, and one with a
// space in its name.
const sandboxConfig = `[[certificate]]
name = "registrar"
profile = "keylime-registrar"
[[certificate]]
name = "web"
profile = "general"
[certificate.files]
folder = "/srv/web server/omen"
`

// TestAgentSandbox installs, restarts and probes inside the agent's unit: a folder that
// people filled is exchanged for a link, keys are looked at as the service's user, and
// systemd is asked for the restart. Then it tries what nobody needs.
func TestAgentSandbox(t *testing.T) {
	if sandboxed() {
		inAgentSandbox(t)
		return
	}
	m := newMachine(t)
	m.installPackage()
	m.write(configFile, sandboxConfig)
	m.must(os.MkdirAll("/srv/web server", 0o755))
	t.Cleanup(func() { m.must(os.RemoveAll("/srv/web server")) })
	m.layDevice()
	chain, key := m.issue("before", x509.ExtKeyUsageServerAuth)
	m.write(keylime.CertsDir+"/before.crt", string(chain))
	m.write(keylime.CertsDir+"/before.key", string(key))
	m.runs(agentService, t.Name())
	m.expect(registrarUnit, map[string]string{"ActiveState": "active"})
	if _, err := os.Readlink(keylime.CertsDir); err != nil {
		t.Errorf("the folder was not exchanged for a link: %v", err)
	}
	for path, user := range map[string]uint32{
		"/run/omen-agent/keylime/gen-*/registrar.key": m.uid("keylime"), "/srv/web server/omen/web.key": 0,
	} {
		found, err := filepath.Glob(path)
		m.must(err)
		if len(found) != 1 {
			t.Fatalf("%s: %v", path, found)
		}
		info, err := os.Stat(found[0])
		m.must(err)
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != user || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", found[0], info.Sys())
		}
	}
}

// layDevice lays something at the TPM's place that can be opened.
func (m *machine) layDevice() {
	m.t.Helper()
	m.write(tpmNode, "")
	m.run("mount", "--bind", "/dev/null", tpmNode)
	m.t.Cleanup(func() {
		m.run("umount", tpmNode)
		m.must(os.Remove(tpmNode))
	})
}

const tpmNode = "/dev/tpmrm0"

func (m *machine) uid(name string) uint32 {
	m.t.Helper()
	info, err := os.Stat("/var/lib/" + name)
	m.must(err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		m.t.Fatal("no owner")
	}
	return stat.Uid
}

func inAgentSandbox(t *testing.T) {
	m := &machine{t: t, ca: testca.New(t, "Book of Omens"), installer: &install.Installer{}}
	m.renewed(sealedBy(m.item("registrar", keylime.Registrar)))
	m.installer = &install.Installer{Set: install.Set{Name: "web", Folder: "/srv/web server/omen"}}
	web := install.Item{Name: "web", Profile: install.General, Usage: x509.ExtKeyUsageServerAuth, CA: m.ca.RootPEM}
	web.Chain, web.Key = m.issue("web", web.Usage)
	web.Service.Action = install.ActNone
	m.renewed(web)
	mayNot(t, "/etc/new", "/usr/new", "/srv/new", "/root/new", "/var/lib/new", "/run/new")
	opensDevice(t)
}

// mayNot tries to make files that only others make.
func mayNot(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.WriteFile(path, nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func opensDevice(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(tpmNode, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if nodes, err := filepath.Glob("/dev/tpm*"); err != nil || len(nodes) != 1 {
		t.Errorf("devices %v, %v", nodes, err)
	}
	if _, err := os.Stat("/dev/kmsg"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kernel's log is there: %v", err)
	}
	if _, err := os.Stat("/sys/class"); err != nil { // by it a TPM that comes later is known
		t.Error(err)
	}
}

// sealedBy seals nothing: install does not care how a key is sealed.
func sealedBy(item install.Item) install.Item {
	item.Sealed = append([]byte("sealed "), item.Key...)
	return item
}

func openSealed(_ context.Context, text []byte, _ *x509.Certificate) (install.KeyPEM, error) {
	key, found := bytes.CutPrefix(text, []byte("sealed "))
	if !found {
		return nil, errors.New("not sealed here")
	}
	return key, nil
}

// TestUnsealSandbox puts a key back inside the unit of the unsealing, which has neither
// network nor sockets.
func TestUnsealSandbox(t *testing.T) {
	if sandboxed() {
		inUnsealSandbox(t)
		return
	}
	m := newMachine(t)
	m.installPackage()
	m.write(configFile, sandboxConfig)
	m.layDevice()
	m.installer.Open = openSealed
	m.renewed(sealedBy(m.item("registrar", keylime.Registrar)))
	m.systemctl("stop", registrarUnit)
	m.must(os.RemoveAll(install.DefaultRunDir)) // as a reboot does
	m.runs(unsealService, t.Name())
	m.start(registrarUnit)
	if m.served(registrarUnit) != m.installed("registrar") {
		t.Error("the registrar does not serve what is installed")
	}
	if info, err := os.Stat(install.DefaultRunDir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", info, err)
	}
}

func inUnsealSandbox(t *testing.T) {
	installer := &install.Installer{}
	opened, err := installer.Unseal(t.Context(), openSealed)
	if err != nil || len(opened) != 1 {
		t.Errorf("unsealed %v: %v", opened, err)
	}
	for _, address := range []string{"127.0.0.1:8891", "[::1]:8891"} {
		if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := net.Dial("unix", "/run/dbus/system_bus_socket"); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("the bus: %v", err)
	}
	mayNot(t, "/etc/new", "/etc/keylime/new", "/usr/new", "/srv/new", "/root/new", "/var/lib/new", "/run/new")
	opensDevice(t)
}
