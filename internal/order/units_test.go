// SPDX-License-Identifier: Apache-2.0

package order

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"funlab.casa/omen/install/unitfile"
)

// units are those that are shipped, with how exposed systemd may find them, in tenths.
var units = map[string]int{unitfile.Agent: 24, unitfile.Unseal: 13}

// host lays a root with the units, the generator's drop-ins for a configuration, and
// units that these name.
func host(t *testing.T, config string, there []string) (root string) {
	t.Helper()
	root = t.TempDir()
	lay := func(name, text string, mode os.FileMode) {
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), mode))
	}
	for name := range units {
		text, err := os.ReadFile("../../dist/systemd/" + name)
		check(t, err)
		lay("etc/systemd/system/"+name, string(text), 0o644)
	}
	for _, name := range []string{"usr/bin/omen-agent", "bin/kill"} {
		lay(name, "", 0o755)
	}
	for _, name := range []string{"sysinit", "basic", "shutdown", "multi-user", "local-fs", "network-online"} {
		lay("etc/systemd/system/"+name+".target", "[Unit]\n", 0o644)
	}
	folder, err := run(t, config, there)
	check(t, err)
	check(t, os.CopyFS(filepath.Join(root, "etc/systemd/system"), os.DirFS(folder)))
	return root
}

func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := exec.Command("systemd-analyze", args...)
	command.Env = append(os.Environ(), "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_COLOR=no")
	out, err := command.CombinedOutput()
	return string(out), err
}

// TestUnitsAreSound has systemd read the units with the drop-ins of each host. It says
// nothing where nothing is wrong.
func TestUnitsAreSound(t *testing.T) {
	for name, c := range hosts {
		t.Run(name, func(t *testing.T) {
			root := host(t, c.config, c.there)
			for unit := range units {
				out, err := analyze(t, "verify", "--man=no", "--root="+root, filepath.Join("/etc/systemd/system", unit))
				if err != nil || out != "" {
					t.Errorf("%s: %v\n%s", unit, err, out)
				}
			}
		})
	}
}

// TestNoRing has systemd read this machine's own units and ours, of an agent that keeps
// a certificate for the network itself. It finds no ring; it does find the one that the
// order of every other unit would make.
func TestNoRing(t *testing.T) {
	const networkd = "systemd-networkd.service"
	root := t.TempDir()
	check(t, os.CopyFS(filepath.Join(root, "usr/lib/systemd/system"), os.DirFS("/usr/lib/systemd/system")))
	for name := range units {
		text, err := os.ReadFile("../../dist/systemd/" + name)
		check(t, err)
		lay(t, root, map[string]string{"usr/lib/systemd/system/" + name: string(text)})
	}
	for _, name := range []string{"usr/bin/omen-agent", "usr/bin/kill"} {
		lay(t, root, map[string]string{name: "#!/bin/sh\n"})
		check(t, os.Chmod(filepath.Join(root, name), 0o755))
	}
	check(t, os.Symlink("usr/bin", filepath.Join(root, "bin")))
	lay(t, root, map[string]string{"etc/systemd/system/multi-user.target.wants/" + networkd: "->/usr/lib/systemd/system/" + networkd})
	folder, err := runBelow(t, root, "[[certificate]]\nprofile=\"general\"\n[certificate.service]\nunit = \""+networkd+"\"\n", []string{"/dev/tpmrm0"})
	if err == nil || !regexp.MustCompile(": "+networkd+", .*network-online.target, "+unitfile.Agent+"$").MatchString(err.Error()) {
		t.Errorf("the way is not said: %v", err)
	}
	check(t, os.CopyFS(filepath.Join(root, "etc/systemd/system"), os.DirFS(folder)))
	const ring = "ordering cycle"
	verify := func() string {
		out, _ := analyze(t, "verify", "--man=no", "--root="+root, "/usr/lib/systemd/system/"+unitfile.Agent, "/usr/lib/systemd/system/"+networkd) // it finds fault with others too
		return out
	}
	if out := verify(); strings.Contains(out, ring) {
		t.Errorf("%s", out)
	}
	lay(t, root, map[string]string{"etc/systemd/system/" + unitfile.Agent + ".d/60-ring.conf": "[Unit]\nBefore=" + networkd + "\n"})
	if out := verify(); !strings.Contains(out, ring) {
		t.Errorf("systemd finds no ring where there is one:\n%s", out)
	}
}

// TestExposure has systemd judge the sandbox, as it is shipped and on a host of
// Keylime.
func TestExposure(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		there  []string
	}{"as shipped": {}, "keylime": {hosts["keylime"].config, hosts["keylime"].there}} {
		root := host(t, c.config, c.there)
		for unit, limit := range units {
			out, err := analyze(t, "security", "--offline=true", "--no-pager", "--root="+root,
				"--threshold="+strconv.Itoa(limit), filepath.Join(root, "etc/systemd/system", unit))
			found := regexp.MustCompile(`Overall exposure level for .*: ([0-9.]+)`).FindStringSubmatch(out)
			if err != nil || found == nil {
				t.Errorf("%s, %s: %v\n%s", name, unit, err, out)
				continue
			}
			t.Logf("%s, %s: %s", name, unit, found[1])
		}
	}
}

// TestOpenLinesHaveAReason: what systemd marks as open is explained in the unit.
func TestOpenLinesHaveAReason(t *testing.T) {
	reasons := map[string]string{
		"SystemCallFilter=~@privileged": "privileged calls", "RootDirectory=/RootImage=": "RootDirectory=",
		"User=/DynamicUser=": "it is root", "CapabilityBoundingSet=~CAP_(DAC_*|FOWNER|IPC_OWNER)": "DAC_OVERRIDE opens",
		"CapabilityBoundingSet=~CAP_(CHOWN|FSETID|SETFCAP)": "CHOWN and FOWNER give", "CapabilityBoundingSet=~CAP_SET(UID|GID|PCAP)": "SETUID and SETGID make",
		"RestrictAddressFamilies=~AF_UNIX": "AF_UNIX for the bus", "RestrictAddressFamilies=~AF_(INET|INET6)": "Open: the network",
		"ProtectHome=": "read-only, not hidden", "ProcSubset=": "ProcSubset=pid would hide", "PrivateNetwork=": "Open: the network",
		"PrivateUsers=": "PrivateUsers= would", "DeviceAllow=": "a device that is special", "IPAddressDeny=": "without a list of addresses",
	}
	for unit := range units {
		text, err := os.ReadFile("../../dist/systemd/" + unit)
		check(t, err)
		said := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "\n#", "\n")), " ")
		out, err := analyze(t, "security", "--offline=true", "--no-pager", filepath.Join("../../dist/systemd", unit))
		check(t, err)
		open := regexp.MustCompile(`(?m)^✗ (\S+)`).FindAllStringSubmatch(out, -1)
		if len(open) == 0 {
			t.Errorf("%s: nothing is open\n%s", unit, out)
		}
		for _, line := range open {
			if reason := reasons[line[1]]; reason == "" || !strings.Contains(said, reason) {
				t.Errorf("%s: %s is open and the unit does not say why", unit, line[1])
			}
		}
	}
}
