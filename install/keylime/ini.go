// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"fmt"
	"strings"
	"unicode"
)

// sections maps section and key to the raw value.
type sections map[string]map[string]string

// parseINI reads text as Python's RawConfigParser does. What that would refuse is
// passed over, the last of two equal keys wins; faults of scanINI tells of it.
func parseINI(text string) sections {
	found := sections{}
	layout := scanINI(text)
	for section := range layout.headers {
		found[section] = map[string]string{}
	}
	for _, e := range layout.entries {
		found[e.section][e.key] = e.value
	}
	return found
}

// scanINI finds settings as RawConfigParser does: full-line comments only, so that
// a remark behind a value belongs to the value; keys in lower case; a line that is
// indented deeper than the setting above it continues that one; nothing twice.
func scanINI(text string) layout {
	s := iniScan{layout: layout{lines: splitLines(text), headers: map[string]int{}}, seen: map[string]bool{}}
	for at, line := range s.lines {
		s.line(at, line)
	}
	for at := range s.entries {
		s.entries[at].value = strings.TrimRightFunc(s.entries[at].value, isSpace)
	}
	return s.layout
}

type iniScan struct {
	layout
	section string
	inside  bool // a section has begun
	open    bool // the last setting may go on
	indent  int  // of the last setting or header
	seen    map[string]bool
}

func (s *iniScan) line(at int, line string) {
	trimmed := strings.TrimFunc(line, isSpace)
	if trimmed == "" && s.open {
		s.entries[len(s.entries)-1].value += "\n"
	}
	if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
		return
	}
	indent := strings.Index(line, trimmed)
	if s.open && indent > s.indent {
		last := &s.entries[len(s.entries)-1]
		last.value += "\n" + trimmed
		last.lines = append(last.lines, at)
		return
	}
	s.indent = indent
	if end := strings.LastIndex(trimmed, "]"); trimmed[0] == '[' && end > 1 {
		s.header(at, trimmed[1:end])
		return
	}
	s.setting(at, trimmed)
}

func (s *iniScan) header(at int, section string) {
	s.section, s.inside, s.open = section, true, false
	if _, twice := s.headers[section]; twice && section != "DEFAULT" {
		s.fault(at, "section [%s] stands twice", section)
		return
	}
	s.headers[section] = at
}

func (s *iniScan) setting(at int, line string) {
	cut := strings.IndexAny(line, "=:")
	switch {
	case !s.inside:
		s.fault(at, "a line before the first section")
		return
	case cut < 1:
		s.fault(at, "neither a setting nor a section")
		return
	}
	key := strings.ToLower(strings.TrimFunc(line[:cut], isSpace))
	name := s.section + "\n" + key
	if s.seen[name] {
		s.fault(at, "%s stands twice in [%s]", key, s.section)
	}
	s.seen[name], s.open = true, true
	s.entries = append(s.entries, entry{section: s.section, key: key, value: strings.TrimFunc(line[cut+1:], isSpace), lines: []int{at}})
}

func (s *iniScan) fault(at int, format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf("line %d: ", at+1)+fmt.Sprintf(format, args...))
}

// isSpace is what Python's str.strip takes off.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
