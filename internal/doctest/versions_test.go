// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dependenciesPage = "docs/dependencies.md"

var requirement = regexp.MustCompile(`(?m)^(?:require )?\s*([\w./-]+\.[\w./-]+) (v[\w.+-]+)(.*)$`)

// TestModules: every module that go.mod requires directly is in the page, with
// its version, and no other is.
func TestModules(t *testing.T) {
	text := page(t, dependenciesPage)
	body := section(t, text, "## Go modules of agent and plugin (`go.mod`)")
	direct := map[string]string{}
	for _, match := range requirement.FindAllStringSubmatch(page(t, "go.mod"), -1) {
		if !strings.Contains(match[3], "indirect") {
			direct[match[1]] = match[2]
		}
	}
	checkVersions(t, body, direct)
	for _, row := range rows(body)[2:] {
		for _, module := range words(row[0]) {
			if direct[module] == "" {
				t.Errorf("%s is not a direct dependency", module)
			}
		}
	}
}

// TestModulesOfTools: the tools of tools/go.mod are in the page.
func TestModulesOfTools(t *testing.T) {
	body := section(t, page(t, dependenciesPage), "## Go modules of tools (`tools/go.mod`)")
	text := page(t, "tools/go.mod")
	tools := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^tool (\S+)$`).FindAllStringSubmatch(text, -1) {
		for _, required := range requirement.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(match[1], required[1]+"/") {
				tools[required[1]] = required[2]
			}
		}
	}
	if len(tools) == 0 {
		t.Fatal("no tools in tools/go.mod")
	}
	checkVersions(t, body, tools)
}

// TestModulesOfBench: what is compared with is in the page.
func TestModulesOfBench(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "bench", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]string{}
	for _, match := range requirement.FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(match[3], "indirect") && match[1] != "funlab.casa/omen" {
			direct[match[1]] = match[2]
		}
	}
	checkVersions(t, section(t, page(t, dependenciesPage), "## Go modules of the benchmark (`bench/go.mod`)"), direct)
}

// TestPythonPackages: the pinned packages are in the page.
func TestPythonPackages(t *testing.T) {
	pinned := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^([a-z0-9-]+)==(\S+)`).FindAllStringSubmatch(page(t, "test/setup/requirements.txt"), -1) {
		pinned[match[1]] = match[2]
	}
	checkVersions(t, section(t, page(t, dependenciesPage), "## Python packages for tests and demo (`test/setup/requirements.txt`)"), pinned)
}

// TestDebianPackages: what the set-up installs is in the page, and nothing else.
func TestDebianPackages(t *testing.T) {
	body := section(t, page(t, dependenciesPage), "## Debian packages for tests and demo (`test/setup/setup.sh`)")
	lists := regexp.MustCompile(`(?s)\n(?:packages|unpacked)=\((.*?)\)`).FindAllStringSubmatch(page(t, "test/setup/setup.sh"), -1)
	if len(lists) != 2 {
		t.Fatal("no packages in setup.sh")
	}
	packages := append(strings.Fields(lists[0][1]), strings.Fields(lists[1][1])...)
	for _, name := range packages {
		if rowOf(body, name) == nil {
			t.Errorf("no row for %s", name)
		}
	}
	for _, row := range rows(body)[2:] {
		if !slices.Contains(packages, strings.Trim(row[0], "`")) {
			t.Errorf("%s is not installed", row[0])
		}
	}
}

func checkVersions(t *testing.T, body string, wanted map[string]string) {
	t.Helper()
	if len(wanted) == 0 {
		t.Fatal("nothing to look for")
	}
	for name, version := range wanted {
		if row := rowOf(body, name); len(row) < 3 || row[1] != version {
			t.Errorf("%s %s: row %v", name, version, row)
		}
	}
}
