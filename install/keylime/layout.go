// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"slices"
	"strings"
)

// layout is where things stand in a configuration file, so that one setting can be
// changed and every other byte be left as it is.
type layout struct {
	lines   []string // each with its end
	headers map[string]int
	entries []entry
	faults  []string // what Keylime's parser would refuse, with the line
}

// entry is one setting.
type entry struct {
	section, key, value string
	lines               []int // its own line, then those that continue it
}

// splitLines cuts text behind each "\n", "\r\n" or single "\r", as Python does.
func splitLines(text string) []string {
	var lines []string
	for text != "" {
		end := strings.IndexAny(text, "\r\n")
		switch {
		case end < 0:
			end = len(text)
		case strings.HasPrefix(text[end:], "\r\n"):
			end += 2
		default:
			end++
		}
		lines = append(lines, text[:end])
		text = text[end:]
	}
	return lines
}

// ending is how the file ends its lines.
func (l layout) ending() string {
	if len(l.lines) > 0 && strings.HasSuffix(l.lines[0], "\r\n") {
		return "\r\n"
	}
	return "\n"
}

func (l layout) find(section, key string) *entry {
	at := slices.IndexFunc(l.entries, func(e entry) bool { return e.section == section && e.key == key })
	if at < 0 {
		return nil
	}
	return &l.entries[at]
}

// raw is the text of a setting, with the lines that continue it.
func (l layout) raw(e *entry) string {
	var text strings.Builder
	for _, at := range e.lines {
		text.WriteString(l.lines[at])
	}
	return text.String()
}

// with returns the text with other lines in the place of a setting; none takes it
// away.
func (l layout) with(e *entry, raw string) string {
	lines := slices.Clone(l.lines)
	for _, at := range e.lines {
		lines[at] = ""
	}
	lines[e.lines[0]] = raw
	return strings.Join(lines, "")
}

// added returns the text with one more line in a section, behind the last setting
// there. A section that is missing is begun at the end.
func (l layout) added(section, line string) string {
	lines := slices.Clone(l.lines)
	behind, there := l.headers[section]
	indent := ""
	for _, e := range l.entries {
		if e.section == section {
			behind = max(behind, e.lines[len(e.lines)-1])
			indent = indentOf(l.lines[e.lines[0]])
		}
	}
	if !there {
		if behind = len(lines) - 1; behind >= 0 {
			line = l.ending() + "[" + section + "]" + l.ending() + line
		} else {
			line = "[" + section + "]" + l.ending() + line
		}
	}
	if behind >= 0 && !strings.HasSuffix(lines[behind], "\n") && !strings.HasSuffix(lines[behind], "\r") {
		lines[behind] += l.ending()
	}
	return strings.Join(slices.Insert(lines, behind+1, indent+line), "")
}

func indentOf(line string) string {
	return line[:len(line)-len(strings.TrimLeftFunc(line, isSpace))]
}
