// SPDX-License-Identifier: Apache-2.0

package page

import (
	"slices"
	"testing"
)

// TestExchanges: what is typed goes on after a backslash and to the end of a here
// document, and the rest is shown.
func TestExchanges(t *testing.T) {
	const text = "spire# one \\\n    two\nshown\n\nmore\nauth# cat > f <<'E'\n{ \\\nspire# no prompt\nE\nspire# three\n"
	found, err := Exchanges(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Exchange{
		{"spire", "one \\\n    two", "shown\n\nmore"},
		{"auth", "cat > f <<'E'\n{ \\\nspire# no prompt\nE", ""},
		{"spire", "three", ""},
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	if _, err := Exchanges("shown before anything was typed\n"); err == nil {
		t.Error("a block without a prompt is read")
	}
}

// TestDifferentScreen: a sample stands for its like, and for nothing else.
func TestDifferentScreen(t *testing.T) {
	for name, c := range map[string]struct {
		sample, shown string
		alike         bool
	}{
		"equal":                {"host  spire\ngeneration 1", "host   spire\ngeneration   1\n", true},
		"another word":         {"host spire", "host auth", false},
		"another number":       {"generation 1", "generation 2", false},
		"a line less":          {"a\nb", "a", false},
		"a line more":          {"a", "a\nb", false},
		"a word more":          {"a", "a b", false},
		"nothing is shown":     {"a", "", false},
		"lines left out":       {"…\nSealed false\n…", "Type shamir\nSealed false\nTotal 2", true},
		"none left out":        {"…\nSealed false\n…", "Sealed false", true},
		"another between":      {"…\nSealed false\n…", "Type shamir\nSealed true\nTotal 2", false},
		"more after the end":   {"…\nSealed false", "Sealed false\nTotal 2", false},
		"words left out":       {"error: install: …", "error: install: something else", true},
		"other words before":   {"error: install: …", "error: probe: something else", false},
		"a word left open":     {"tpm/ auth_tpm_…", "tpm/ auth_tpm_0f6c", true},
		"another left open":    {"tpm/ auth_tpm_…", "tpm/ auth_jwt_0f6c", false},
		"hex digits left open": {"sha256-2a49…", "sha256-9b3b", true},
		"a serial":             {"x 0f:1e:2d:3c:4b:5a:69:78:87:96:a5", "x 1f:1e:2d:3c:4b:5a:69:78:87:96:a5", true},
		"no serial":            {"x 0f:1e:2d:3c:4b:5a:69:78:87:96:a5", "x none", false},
		"a date":               {"until 2026-11-25 04:20:11 UTC", "until 2027-01-02 03:04:05 UTC", true},
		"no date":              {"until 2026-11-25", "until tomorrow", false},
	} {
		t.Run(name, func(t *testing.T) {
			if d := DifferentScreen(c.sample, c.shown); (len(d) == 0) != c.alike {
				t.Errorf("%q stands for %q: %t, %v", c.sample, c.shown, !c.alike, d)
			}
		})
	}
}
