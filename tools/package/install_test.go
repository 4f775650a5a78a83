// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/tools/program"
)

// testRPMInstalled has rpm install the packages of each architecture into a root of
// their own, check what is there by its books, and take it away. Their scripts run in
// test/systemd.
func (b batch) testRPMInstalled(t *testing.T) {
	for arch, runs := range map[string][]string{
		"x86_64": nil, "aarch64": {filepath.Join(repository, ".cache/qemu-aarch64-static")},
	} {
		root := t.TempDir()
		rpm := func(args ...string) { outputOf(t, "rpm", append([]string{"--root", root}, args...)...) }
		for _, d := range []description{agentPackage(saying{}), pluginPackage()} {
			rpm("--install", "--nodeps", "--noscripts", "--ignorearch", filepath.Join(b.Out, d.program+"-9.8.7~rc.1-1."+arch+".rpm"))
			rpm("--verify", "--nodeps", d.program)
		}
		said, err := exec.Command("env", append(runs, filepath.Join(root, "usr/bin", program.Agent), "version")...).CombinedOutput()
		if err != nil || strings.TrimSpace(string(said)) != program.Agent+" "+testVersion {
			t.Errorf("%s: version: %v\n%s (make setup brings qemu)", arch, err, said)
		}
		rpm("--erase", "--nodeps", "--noscripts", program.Agent, program.Plugin)
		for _, left := range ours(t, root) {
			t.Errorf("%s: %s is left", arch, left)
		}
	}
}

// ours lists what is no folder that packages share, and none of rpm's books.
func ours(t *testing.T, root string) (found []string) {
	t.Helper()
	check(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root)
		switch {
		case err != nil:
			return err
		case name == "/root/.rpmdb" || name == "/var/lib/rpm": // of Debian's rpm, and of others
			return fs.SkipDir
		case !entry.IsDir() || strings.Contains(name, "omen") || strings.Contains(name, "openbao"):
			found = append(found, name)
		}
		return nil
	}))
	return found
}
