// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/test/nspawn"
	"funlab.casa/omen/test/testca"
)

// machine is the container from inside, with Keylime as shipped: every test gets
// it with its services stopped and nothing of ours in it.
type machine struct {
	t         *testing.T
	ca        *testca.CA
	installer *install.Installer
}

// ports are where the units serve TLS.
var ports = map[string]int{verifierUnit: 8881, registrarUnit: 8891, agentUnit: 9002}

// ours is what an installation and these tests leave.
var ours = []string{
	"/var/lib/omen-agent", "/etc/keylime/certs", "/etc/keylime/*.conf.d/*.conf", notes,
	"/etc/systemd/system/keylime*", "/run/systemd/system/keylime*", "/etc/default/keylime*",
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, ca: testca.New(t, "Book of Omens"), installer: &install.Installer{}}
	m.clean()
	since := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.run("journalctl", "--no-pager", "--since=@"+strconv.FormatInt(since.Unix(), 10)))
		}
	})
	if err := os.Mkdir(notes, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(notes, 0o777); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) clean() {
	m.t.Helper()
	// Killed first: Keylime's stop can take its 60 s when it comes early.
	for _, unit := range allUnits {
		if m.show(unit, "ActiveState") == "active" {
			m.systemctl("kill", "--signal=KILL", unit)
		}
		m.systemctl("stop", unit)
	}
	for _, pattern := range ours {
		found, err := filepath.Glob(pattern)
		m.must(err)
		for _, path := range found {
			m.must(os.RemoveAll(path))
		}
	}
	// Before our time the agent speaks plain HTTP; the real one would make itself
	// a certificate, the stand-in does not.
	m.write("/etc/keylime/agent.conf.d/10-before.conf", "[agent]\nenable_agent_mtls = false\n")
	m.systemctl("daemon-reload")
	m.systemctl("reset-failed")
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	m.must(os.WriteFile(path, []byte(text), 0o644))
}

// dropIn adds settings to a unit.
func (m *machine) dropIn(unit, text string) {
	m.t.Helper()
	m.write("/etc/systemd/system/"+unit+".d/50-test.conf", text)
	m.systemctl("daemon-reload")
}

func (m *machine) run(name string, arguments ...string) string {
	m.t.Helper()
	output, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %v: %v\n%s", name, arguments, err, output)
	}
	return strings.TrimSpace(string(output))
}

func (m *machine) systemctl(arguments ...string) { m.t.Helper(); m.run("systemctl", arguments...) }

// show is a property of a unit, as systemd says it.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+property, unit)
}

// expect compares properties.
func (m *machine) expect(unit string, properties map[string]string) {
	m.t.Helper()
	for property, want := range properties {
		if got := m.show(unit, property); got != want {
			m.t.Errorf("%s: %s is %q, not %q", unit, property, got, want)
		}
	}
}

// start starts units one after the other, each listening before the next.
func (m *machine) start(units ...string) {
	m.t.Helper()
	for _, unit := range units {
		m.systemctl("start", unit)
		m.listens(unit)
	}
}

func (m *machine) listens(unit string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	m.must(probe.Ready(ctx, address(unit), nil))
}

func address(unit string) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[unit])) }

// raiseFlag makes the next start with fail-once or hang-once a bad one.
func (m *machine) raiseFlag() { m.t.Helper(); m.write(flag, "") }

// processes are the numbers in the unit's control group.
func (m *machine) processes(unit string) []string {
	m.t.Helper()
	group := m.show(unit, "ControlGroup")
	for _, hierarchy := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
		text, err := os.ReadFile(filepath.Join(hierarchy, group, "cgroup.procs"))
		if err == nil {
			return strings.Fields(string(text))
		}
	}
	m.t.Fatalf("%s: no control group %q", unit, group)
	return nil
}

func alive(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// item is a fresh certificate for a profile. Nothing is configured: units,
// users and addresses are for install to find.
func (m *machine) item(name, profile string) install.Item {
	m.t.Helper()
	known, _ := keylime.Find(profile)
	chain, key := m.issue(name, known.Usage)
	return install.Item{Name: name, Profile: profile, Chain: chain, Key: key, CA: m.ca.RootPEM}
}

// issue is a fresh certificate for NAME.test and 127.0.0.1.
func (m *machine) issue(name string, usages ...x509.ExtKeyUsage) (chain, key []byte) {
	m.t.Helper()
	return m.ca.Issue(m.t, testca.Want{Name: name + ".test", Usages: usages, IPs: []string{"127.0.0.1"}})
}

// pool accepts what a CA signed, also where only the leaf is served.
func pool(ca *testca.CA) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Bundle())
	return pool
}

func (m *machine) agentItem() install.Item { m.t.Helper(); return m.item("agent", keylime.Agent) }

// outcome is what came of a renewal.
type outcome struct {
	err  error         // of Install, Reload or Probe
	back error         // of RollBack, where that was tried
	took time.Duration // of Reload and Probe
}

// renew does what the agent does.
func (m *machine) renew(items ...install.Item) outcome {
	m.t.Helper()
	ctx := m.t.Context()
	change, err := m.installer.Install(ctx, items)
	if err != nil {
		return outcome{err: err}
	}
	began := time.Now()
	if err = change.Reload(ctx); err == nil {
		err = change.Probe(ctx)
	}
	result := outcome{err: err, took: time.Since(began)}
	if err != nil {
		result.back = change.RollBack(ctx)
	}
	m.must(change.Close())
	return result
}

// renewed is a renewal that must succeed.
func (m *machine) renewed(items ...install.Item) {
	m.t.Helper()
	if o := m.renew(items...); o.err != nil {
		m.t.Fatalf("%v; roll back: %v", o.err, o.back)
	}
}

// served is the serial number that a unit shows, under full verification.
func (m *machine) served(unit string) string {
	m.t.Helper()
	conn, err := tls.Dial("tcp", address(unit), &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool(m.ca), ServerName: "127.0.0.1"})
	m.must(err)
	defer conn.Close()
	return probe.Serial(conn.ConnectionState().PeerCertificates[0])
}

func (m *machine) installed(name string) string {
	m.t.Helper()
	set, err := m.installer.Current()
	m.must(err)
	for _, certificate := range set.Certificates {
		if certificate.Name == name {
			return certificate.Serial
		}
	}
	m.t.Fatalf("%s is not installed", name)
	return ""
}

// tree is every file that an installation would make or change.
func (m *machine) tree() map[string]string {
	m.t.Helper()
	found := map[string]string{}
	for _, top := range []string{"/etc/keylime", "/var/lib/omen-agent"} {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Base(path) == "install.lock" {
				return err
			}
			if entry.Type()&fs.ModeSymlink != 0 {
				found[path], err = os.Readlink(path)
				return err
			}
			text, err := os.ReadFile(path)
			found[path] = string(text)
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			m.t.Fatal(err)
		}
	}
	return found
}

// await waits for a condition.
func (m *machine) await(what string, holds func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	err := nspawn.Await(ctx, func() error {
		if !holds() {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
}
