// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An Exchange is what a person types at a host's prompt, and what is shown then.
type Exchange struct {
	Host, Command, Shown string
}

var (
	prompt  = regexp.MustCompile(`^([a-z]+)# (.+)$`)
	hereDoc = regexp.MustCompile(`<<'([A-Z]+)'`)
)

// Exchanges reads a block of console. What is typed begins with a prompt, "spire# ",
// and goes on below after a backslash, and to the end of a here document.
func Exchanges(text string) ([]Exchange, error) {
	var all []Exchange
	for lines := strings.Split(strings.TrimRight(text, "\n"), "\n"); len(lines) > 0; {
		m := prompt.FindStringSubmatch(lines[0])
		if m == nil {
			return nil, fmt.Errorf("%q: no prompt", lines[0])
		}
		typed := typedLines(lines)
		shown := typed
		for shown < len(lines) && !prompt.MatchString(lines[shown]) {
			shown++
		}
		command := strings.Join(lines[:typed], "\n")
		all = append(all, Exchange{
			Host: m[1], Command: strings.TrimPrefix(command, m[1]+"# "), Shown: strings.Join(lines[typed:shown], "\n"),
		})
		lines = lines[shown:]
	}
	return all, nil
}

// typedLines counts the lines that the first one begins.
func typedLines(lines []string) int {
	n := 1
	for n < len(lines) && strings.HasSuffix(lines[n-1], `\`) {
		n++
	}
	if here := hereDoc.FindStringSubmatch(lines[n-1]); here != nil {
		if length := slices.Index(lines[n:], here[1]); length >= 0 {
			n += length + 1
		}
	}
	return n
}

// DifferentScreen holds what a program showed against a sample, word by word. A
// line … stands for any number of lines, … at the end of a line for any number of words,
// and a word with … in it for all that begin so, but for hex digits.
func DifferentScreen(sample, shown string) []string {
	a, open := screenLines(shown), false
	for _, line := range screenLines(sample) {
		if open = open || line == "…"; line == "…" {
			continue
		}
		at := slices.IndexFunc(a, func(shown string) bool { return likeLine(line, shown) })
		if at < 0 || at > 0 && !open {
			return []string{fmt.Sprintf("sample %q, shown %q", line, a)}
		}
		a, open = a[at+1:], false
	}
	if len(a) > 0 && !open {
		return []string{fmt.Sprintf("shown beside the sample: %q", a)}
	}
	return nil
}

func likeLine(sample, shown string) bool {
	s, a := strings.Fields(sample), strings.Fields(shown)
	if n := len(s) - 1; n >= 0 && s[n] == "…" && len(a) >= n {
		s, a = s[:n], a[:n]
	}
	return slices.EqualFunc(s, a, likeWord)
}

func screenLines(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func likeWord(sample, word string) bool {
	if before, _, cut := strings.Cut(sample, "…"); cut {
		return strings.HasPrefix(word, strings.TrimRight(before, "0123456789abcdef"))
	}
	return wordKind(sample) == wordKind(word)
}

// wordKinds are words whose value differs from run to run, within a word too.
var wordKinds = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`(?i)\b([0-9a-f]{2}:){31}[0-9a-f]{2}\b`), "{fingerprint}"},
	{regexp.MustCompile(`(?i)\b([0-9a-f]{2}:){10,19}[0-9a-f]{2}\b`), "{serial}"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?\b`), "{date}"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "{time}"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "{digest}"},
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "{UUID}"},
}

func wordKind(word string) string {
	for _, k := range wordKinds {
		word = k.pattern.ReplaceAllString(word, k.name)
	}
	return word
}
