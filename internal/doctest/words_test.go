// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
)

// constants are the values of the string constants of one type in a source file.
func constants(t *testing.T, file, typeName string) []string {
	t.Helper()
	pattern := regexp.MustCompile(`(?m)^\s+\w+\s+` + typeName + `\s+= "([^"]+)"`)
	var found []string
	for _, match := range pattern.FindAllStringSubmatch(page(t, file), -1) {
		found = append(found, match[1])
	}
	if len(found) < 3 {
		t.Fatalf("%s: no constants of type %s", file, typeName)
	}
	return found
}

// TestRules: every rule of the protocol has its row, which says whether a host
// may start over.
func TestRules(t *testing.T) {
	body := section(t, page(t, "docs/protocol.md"), "## Refusals")
	for _, word := range constants(t, "attest/refusal.go", "Rule") {
		rule := attest.Rule(word)
		if !rule.Known() {
			t.Errorf("rule %s is not known", rule)
		}
		want := "no"
		if rule.StartOver() {
			want = "yes"
		}
		if row := rowOf(body, word); len(row) != 3 || row[2] != want {
			t.Errorf("rule %s: row %v, start over is %s", rule, row, want)
		}
	}
	for _, row := range rows(body) {
		for _, word := range words(row[0]) {
			if !attest.Rule(word).Known() {
				t.Errorf("%s is no rule", word)
			}
		}
	}
}

// TestBounds: the numbers of the protocol are in its page.
func TestBounds(t *testing.T) {
	text := page(t, "docs/protocol.md")
	for name, want := range map[string]bool{
		"| 4, of 4 KiB each |":                attest.MaxIntermediates == 4 && attest.MaxCertificate == 4<<10,
		"whole message at most 64 KiB":        attest.MaxChallengeRequest == 64<<10,
		"| 1 KiB |":                           attest.MaxQuote == 1<<10,
		"| 600 bytes |":                       attest.MaxSignature == 600,
		"| 16, of 256 bytes each |":           attest.MaxKeys == 16 && attest.MaxKey == 256,
		"`0x81010020`":                        attest.AKHandle == 0x81010020,
		"The public area is 120 bytes long":   len(new(attest.AK).Public()) == 120,
		"SHA-256(`omen attestation key 1`)":   true,
		`SHA-256("omen/1/quote/" ‖ kind)`:     true,
		"exactly 1":                           attest.Version == 1,
		"| 512 bytes; must be the template's": attest.MaxAKPublic == 512,
	} {
		if !want || !strings.Contains(text, name) {
			t.Errorf("%q: in the page %t, in the code %t", name, strings.Contains(text, name), want)
		}
	}
}

// TestErrorTables: the operator's tables have every word that an error can hold.
func TestErrorTables(t *testing.T) {
	text := page(t, "docs/operations.md")
	for _, table := range []struct{ heading, file, typeName string }{
		{"### 3, refused: the rule", "attest/refusal.go", "Rule"},
		{"### 4, not reached: the kind", "internal/bao/error.go", "Kind"},
		{"### 6, issuing", "issuer/judge.go", "Rule"},
	} {
		body := section(t, text, table.heading)
		// These kinds have no row of their own: the first three are in the text of
		// another section, the last one is whoever pressed Ctrl-C.
		elsewhere := []string{"refused", "denied", "rejected", "cancelled"}
		for _, word := range constants(t, table.file, table.typeName) {
			if rowOf(body, word) == nil && !slices.Contains(elsewhere, word) {
				t.Errorf("%s: no row for %s", table.heading, word)
			}
		}
	}
}

// TestExitCodes: the table has the codes 0 to 8 in order, and every step.
func TestExitCodes(t *testing.T) {
	body := section(t, page(t, "docs/operations.md"), "## Reading errors")
	body, _, _ = strings.Cut(body, "\n### ")
	var codes, steps []string
	for _, row := range rows(body)[2:] {
		codes = append(codes, row[0])
		steps = append(steps, words(row[2])...)
	}
	if got := strings.Join(codes, ""); got != "012345678" {
		t.Errorf("codes %s", got)
	}
	for _, step := range constants(t, "internal/agent/step.go", "Step") {
		if !slices.Contains(steps, step) {
			t.Errorf("no exit code for step %s", step)
		}
	}
	source := page(t, "cmd/omen-agent/exit.go")
	for _, code := range codes[1:] {
		if !regexp.MustCompile(`(?m)^\s+exit\w+\s+= ` + code + `\b`).MatchString(source) {
			t.Errorf("the program has no exit code %s", code)
		}
	}
}
