// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"strings"
)

// sections maps section and key to the raw value.
type sections map[string]map[string]string

// parseINI reads text as Python's RawConfigParser does, as far as single-line
// settings go: full-line comments only, so that a remark behind a value belongs
// to the value; keys in lower case; an indented line continues the one before.
// Lines it does not understand are passed over.
func parseINI(text string) sections {
	found := sections{}
	var section, key string
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		indented := line[0] == ' ' || line[0] == '\t'
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case indented && key != "":
			found[section][key] += "\n" + trimmed
		case trimmed[0] == '[' && strings.Contains(trimmed, "]"):
			section, key = trimmed[1:strings.LastIndex(trimmed, "]")], ""
			if found[section] == nil {
				found[section] = map[string]string{}
			}
		default:
			key = found.set(section, trimmed)
		}
	}
	return found
}

// set stores "key = value" or "key: value" and returns the key, "" for neither.
func (s sections) set(section, line string) string {
	cut := strings.IndexAny(line, "=:")
	if cut < 1 || s[section] == nil {
		return ""
	}
	key := strings.ToLower(strings.TrimSpace(line[:cut]))
	s[section][key] = strings.TrimSpace(line[cut+1:])
	return key
}
