// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"regexp"
	"strings"
)

var (
	tomlTable = regexp.MustCompile(`^\s*\[\s*"?([A-Za-z0-9_.-]+)"?\s*\]\s*(#.*)?$`)
	// A setting of one line: key, value, and what may stand behind it. Values over
	// several lines are not taken for settings.
	tomlLine = regexp.MustCompile(`^\s*"?([A-Za-z0-9_-]+)"?\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\[[^\[\]]*\]|[^"'\[{#\s]+)(\s*(?:#.*)?)$`)
)

// scanTOML finds the settings of one line each. It reads lines, not TOML: whoever
// changes text by it has to compare what a real parser makes of the result.
func scanTOML(text string) layout {
	l := layout{lines: splitLines(text), headers: map[string]int{}}
	section := ""
	for at, line := range l.lines {
		line = strings.TrimRight(line, "\r\n")
		if table := tomlTable.FindStringSubmatch(line); table != nil {
			section = table[1]
			l.headers[section] = at
		} else if found := tomlLine.FindStringSubmatch(line); found != nil {
			l.entries = append(l.entries, entry{section: section, key: found[1], value: found[2], lines: []int{at}})
		}
	}
	return l
}

// remark is what stands behind the value of a setting of one line.
func remark(line string) string {
	if found := tomlLine.FindStringSubmatch(strings.TrimRight(line, "\r\n")); found != nil {
		return found[3]
	}
	return ""
}
