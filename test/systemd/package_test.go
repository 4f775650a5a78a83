// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// packageFile is the agent's package, inside.
const packageFile = "/opt/omen/omen-agent.deb"

// The units of the package, and where it is configured.
const (
	agentService  = "omen-agent.service"
	unsealService = "omen-agent-unseal.service"
	configFile    = "/etc/omen-agent/agent.toml"
)

// installPackage installs the agent's package as an administrator does; it is purged at
// the end of the test.
func (m *machine) installPackage() {
	m.t.Helper()
	m.t.Cleanup(m.purgePackage)
	m.run("dpkg", "--install", packageFile)
}

func (m *machine) purgePackage() {
	m.t.Helper()
	for _, path := range []string{configFile, "/etc/systemd/system/" + agentService + ".d", "/etc/systemd/system/" + unsealService + ".d"} {
		m.must(os.RemoveAll(path))
	}
	m.run("dpkg", "--purge", "omen-agent")
}

// packaged is everything that a package could leave, but dpkg's own books.
func (m *machine) packaged() []string {
	m.t.Helper()
	found := map[string]bool{}
	for _, top := range []string{"/etc", "/usr", "/var/lib", "/run/systemd/generator", "/run/omen-agent"} {
		err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if path == "/var/lib/dpkg" {
				return fs.SkipDir
			}
			found[path] = true
			return err
		})
		m.must(err)
	}
	return slices.Sorted(maps.Keys(found))
}

// TestPackage installs the package, looks at what systemd makes of it, and takes it
// away again.
func TestPackage(t *testing.T) {
	m := newMachine(t)
	m.run("dpkg", "--purge", "omen-agent") // makes the folders of deb-systemd-helper
	before := m.packaged()
	m.installPackage()
	for _, unit := range []string{agentService, unsealService} {
		m.expect(unit, map[string]string{"LoadState": "loaded", "NeedDaemonReload": "no", "UnitFileState": "enabled", "ActiveState": "inactive", "SubState": "dead"})
		m.systemctl("start", unit) // nothing is configured: skipped, which is no failure
		m.expect(unit, map[string]string{"ConditionResult": "no", "ActiveState": "inactive", "Result": "success"})
	}
	if found := m.search(); len(found) != 0 {
		t.Errorf("the package is taken for another renewal: %v", found)
	}
	m.write(configFile, "[[certificate]]\nname = \"verifier\"\nprofile = \"keylime-verifier\"\n")
	m.systemctl("daemon-reload")
	m.run("dpkg", "--remove", "omen-agent")
	if state := m.show(agentService, "LoadState"); state != "not-found" {
		t.Errorf("after removal the unit is %s", state)
	}
	m.must(os.Remove(configFile))
	m.run("dpkg", "--purge", "omen-agent")
	if after := m.packaged(); !slices.Equal(before, after) {
		t.Errorf("left: %v; gone: %v", without(after, before), without(before, after))
	}
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(path string) bool { return slices.Contains(some, path) })
}

// TestPurgeKeepsCertificates: services read them.
func TestPurgeKeepsCertificates(t *testing.T) {
	m := newMachine(t)
	m.installPackage()
	m.renewed(m.item("registrar", "keylime-registrar"))
	m.write(configFile, "")
	before := m.tree()
	for _, act := range []string{"--remove", "--purge"} {
		if said := m.run("dpkg", act, "omen-agent"); !strings.Contains(said, "/var/lib/omen-agent") {
			t.Errorf("%s does not say that certificates stay: %s", act, said)
		}
	}
	m.same(before)
	if _, err := os.Stat(configFile); err != nil {
		t.Error(err)
	}
}

// TestGenerator has systemd run the generator: the order and the folders of agent.toml
// are in the units, and systemd warns when it has read an older one.
func TestGenerator(t *testing.T) {
	m := newMachine(t)
	m.installPackage()
	m.must(os.MkdirAll("/srv/100% ours", 0o755))
	t.Cleanup(func() { m.must(os.RemoveAll("/srv/100% ours")) })
	m.write(configFile, `[[certificate]]
name = "web"
profile = "general"
[certificate.files]
folder = "/srv/100% ours/omen"
[certificate.service]
unit = "web@1.service"
[[certificate]]
name = "bad"
profile = "general"
[certificate.service]
unit = "a.service\nExecStart=/bin/true"
`)
	m.systemctl("daemon-reload")
	for _, unit := range []string{agentService, unsealService} {
		before := strings.Fields(m.show(unit, "Before"))
		if !slices.Contains(before, "web@1.service") || !slices.Contains(before, registrarUnit) {
			t.Errorf("%s is before %v", unit, before)
		}
		m.expect(unit, map[string]string{"LoadState": "loaded", "NeedDaemonReload": "no", "SourcePath": configFile})
	}
	if got := m.show(agentService, "ReadWritePaths"); got != `"-/srv/100% ours"` {
		t.Errorf("ReadWritePaths=%s", got)
	}
	if got := m.show(unsealService, "ReadWritePaths"); got != "" {
		t.Errorf("unseal: ReadWritePaths=%s", got)
	}
	later := time.Now().Add(time.Minute)
	m.must(os.Chtimes(configFile, later, later))
	m.expect(agentService, map[string]string{"NeedDaemonReload": "yes"})
	m.write(configFile, "[[certificate]\n") // does not keep the system from reading units
	m.systemctl("daemon-reload")
	m.expect(agentService, map[string]string{"LoadState": "loaded", "ReadWritePaths": ""})
}
