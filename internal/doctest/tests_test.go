// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile("`([a-z0-9/-]+)\\.((?:Test|Fuzz)\\w+)`")

// TestThreats: every attack in the threat model names a test that exists.
func TestThreats(t *testing.T) {
	text := page(t, "docs/threat-model.md")
	for _, heading := range []string{"## At the auth method", "## At the CA", "## On the host"} {
		table := rows(section(t, text, heading))
		if len(table) < 3 {
			t.Fatalf("%s: no table", heading)
		}
		for _, row := range table[2:] {
			named := testName.FindAllStringSubmatch(row[len(row)-1], -1)
			if len(named) == 0 {
				t.Errorf("%s: no test against %q", heading, row[0])
			}
			for _, match := range named {
				checkTest(t, match[1], match[2])
			}
		}
	}
}

// checkTest looks for a test in the files of its package.
func checkTest(t *testing.T, dir, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("no test %s in %s", name, dir)
}
