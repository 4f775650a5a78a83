// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// Groups are chosen by their names, in the order that was asked for.
func TestChoose(t *testing.T) {
	for only, want := range map[string]string{
		"":                  names(),
		"herd":              "herd",
		"herd,verification": "herd, verification",
	} {
		chosen, err := choose(only)
		var got []string
		for _, g := range chosen {
			got = append(got, g.name)
		}
		if err != nil || strings.Join(got, ", ") != want {
			t.Errorf("%q chooses %q: %v", only, got, err)
		}
	}
	if _, err := choose("herd,null"); err == nil || !strings.Contains(err.Error(), names()) {
		t.Errorf("a group that is not there: %v", err)
	}
}

// A bound belongs to what meets it; a figure that was not taken has no line.
func TestTables(t *testing.T) {
	b := &bench{figures: map[string]float64{"low": 0.5, "high": 3, "plain": 7, "zero": 0}}
	var page strings.Builder
	b.table(&page, section{title: "T", intro: "I.", figures: []named{
		{"low", atLeast(0.85, "a")}, {"high", atMost(4, "b")}, {"plain", plain("c")}, {"zero", atMost(0, "d")}, {"absent", plain("e")},
	}})
	want := "\n## T\n\nI.\n\n| figure | value | wanted | meaning |\n|---|---|---|---|\n" +
		"| `low` | 0.5 | ≥ 0.85: **missed** | a |\n| `high` | 3 | ≤ 4: met | b |\n| `plain` | 7 |  | c |\n| `zero` | 0 | ≤ 0: met | d |\n"
	if page.String() != want {
		t.Errorf("table\n%s\nwant\n%s", page.String(), want)
	}
}

// No two figures have one name: results.json is flat.
func TestFigureNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sections {
		for _, f := range s.figures {
			if seen[f.name] || f.about == "" {
				t.Errorf("%q stands twice, or says nothing", f.name)
			}
			seen[f.name] = true
		}
	}
}
