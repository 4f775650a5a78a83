// SPDX-License-Identifier: Apache-2.0

package vendors_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest/vendors"
)

const page = "../../docs/ek-trust.md"

var update = flag.Bool("update", false, "write the tables of "+page+" anew")

// The tables of the page say what the bundle holds.
func TestPage(t *testing.T) {
	text := read(t, page)
	want := text
	for name, table := range map[string]string{"built in": builtInTable(t), "left out": leftOutTable(t)} {
		begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n"
		before, rest, found := strings.Cut(want, begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no table %q", page, name)
		}
		want = before + begin + table + end + after
	}
	if *update {
		check(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	if text != want {
		t.Errorf("%s is out of date: go test ./attest/vendors -run TestPage -update", page)
	}
}

func builtInTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| Vendor | Subject | SHA-256 | Class | Not after | Source | What is done |\n|---|---|---|---|---|---|---|\n")
	for _, c := range list(t) {
		done := c.Use
		if c.Note != "" {
			done += "; " + c.Note
		}
		fmt.Fprintf(&b, "| %s | %s | `%s…` | %s | %s | %s | %s |\n",
			c.Vendor, name(c.Subject), c.SHA256[:16], c.Class, c.NotAfter.Format(time.DateOnly), source(c), done)
	}
	return b.String()
}

func source(c vendors.Certificate) string {
	if c.AlsoIn == "" {
		return c.Source
	}
	return c.Source + "; also in " + c.AlsoIn
}

func leftOutTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| Subject | SHA-256 | Not after | Source | Why |\n|---|---|---|---|---|\n")
	for _, l := range leftOut(t) {
		fmt.Fprintf(&b, "| %s | `%s…` | %s | %s | %s |\n", name(l.subject), l.sha256[:16], l.notAfter, l.source, l.why)
	}
	return b.String()
}

// name is the common name of a subject; Intel's tells nothing without its unit.
func name(subject string) string {
	cn, rest, _ := strings.Cut(strings.TrimPrefix(subject, "CN="), ",OU=")
	cn, _, _ = strings.Cut(cn, ",O=")
	if cn == "www.intel.com" {
		unit, _, _ := strings.Cut(rest, ",")
		cn += ", " + unit
	}
	return strings.ReplaceAll(cn, `\`, "")
}
