// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"html"
	"testing"

	"funlab.casa/omen/internal/doctor"
)

// TestDoctor: the table of checks is that of the code, in its order.
func TestDoctor(t *testing.T) {
	table := rows(section(t, page(t, "docs/doctor.md"), "## The checks"))
	checks := doctor.Checks()
	if len(table) != len(checks)+2 {
		t.Fatalf("%d rows for %d checks", len(table)-2, len(checks))
	}
	for at, c := range checks {
		row := table[at+2]
		for cell, want := range []string{"`" + c.Name + "`", c.Asks, c.Remedy} {
			if got := html.UnescapeString(row[cell]); got != want {
				t.Errorf("%s: the page has %q, the code %q", c.Name, got, want)
			}
		}
	}
}
