// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	digest = regexp.MustCompile(`^(sha256-)?[0-9a-f]{40,}$`)
	uuid   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	word   = regexp.MustCompile(`[0-9A-Za-z+/=_-]*$`)
)

// kind is what a text is if its value differs from run to run, else the text.
func kind(text string) string {
	switch _, err := time.Parse(time.RFC3339, text); {
	case err == nil:
		return "a time"
	case uuid.MatchString(text):
		return "a UUID"
	case digest.MatchString(text):
		return fmt.Sprintf("%s%d hex digits", digest.FindStringSubmatch(text)[1], len(text))
	}
	return text
}

// alike reports whether a sample stands for a text. What follows a word that ends
// in … is left open.
func alike(sample, text string) bool {
	if before, _, cut := strings.Cut(sample, "…"); cut {
		return strings.HasPrefix(text, word.ReplaceAllString(before, ""))
	}
	return kind(sample) == kind(text)
}

// Differences holds an answer against a sample: the same keys, the same types,
// the same values where they do not differ from run to run.
func Differences(sample, answer any) []string { return differences(sample, answer, "") }

func differences(sample, answer any, path string) []string {
	switch s := sample.(type) {
	case map[string]any:
		if a, ok := answer.(map[string]any); ok {
			return differentKeys(s, a, path)
		}
	case []any:
		if a, ok := answer.([]any); ok && len(a) == len(s) {
			var all []string
			for i := range s {
				all = append(all, differences(s[i], a[i], fmt.Sprintf("%s[%d]", path, i))...)
			}
			return all
		}
	case string:
		if a, ok := answer.(string); ok && alike(s, a) {
			return nil
		}
	default:
		if sample == answer {
			return nil
		}
	}
	return []string{fmt.Sprintf("%s: sample %v, answer %v", path, sample, answer)}
}

func differentKeys(sample, answer map[string]any, path string) []string {
	byKind := func(a, b string) int { return cmp.Or(cmp.Compare(kind(a), kind(b)), cmp.Compare(a, b)) }
	s := slices.SortedFunc(maps.Keys(sample), byKind)
	a := slices.SortedFunc(maps.Keys(answer), byKind)
	if !slices.EqualFunc(s, a, func(s, a string) bool { return kind(s) == kind(a) }) {
		return []string{fmt.Sprintf("%s: sample has %q, answer %q", path, s, a)}
	}
	var all []string
	for i := range s {
		all = append(all, differences(sample[s[i]], answer[a[i]], path+"."+s[i])...)
	}
	return all
}

// envelope are the parts of OpenBao's answers that say nothing here.
var envelope = []string{"request_id", "lease_id", "lease_duration", "renewable"}

// Parse reads an answer as a page shows it: without what says nothing.
func Parse(text string) (any, error) {
	var answer any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, fmt.Errorf("%w in %q", err, text)
	}
	if top, ok := answer.(map[string]any); ok {
		maps.DeleteFunc(top, func(key string, value any) bool { return value == nil || slices.Contains(envelope, key) })
	}
	return answer, nil
}

var gap = regexp.MustCompile(` {2,}`)

// DifferentTable holds what bao printed against a sample, cell by cell.
func DifferentTable(sample, answer string) []string {
	s := strings.Split(strings.TrimSpace(sample), "\n")
	a := strings.Split(strings.TrimSpace(answer), "\n")
	if len(s) != len(a) {
		return []string{fmt.Sprintf("sample of %d lines, answer:\n%s", len(s), answer)}
	}
	var all []string
	for i := range s {
		cells := gap.Split(strings.TrimSpace(s[i]), -1)
		if !slices.EqualFunc(cells, gap.Split(strings.TrimSpace(a[i]), -1), alike) && strings.Trim(s[i], "- ") != "" {
			all = append(all, fmt.Sprintf("sample %q, answer %q", s[i], a[i]))
		}
	}
	return all
}
