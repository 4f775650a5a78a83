// SPDX-License-Identifier: Apache-2.0

package unitfile

import "strings"

// Our units.
const (
	Agent  = "omen-agent.service"
	Unseal = "omen-agent-unseal.service"
)

// TransientFolder holds units that end with the boot and cannot be disabled.
const TransientFolder = "/run/systemd/transient"

// Folders are where systemd finds units of the system, the first counts
// (systemd.unit(5)). Those of generators are not among them: what they make comes from
// other files.
var Folders = []string{
	"/etc/systemd/system.control", "/run/systemd/system.control", TransientFolder,
	"/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// A Setting is one line of a unit file.
type Setting struct{ Section, Key, Value string }

// Parse reads the settings of a unit file.
func Parse(content string) []Setting {
	var settings []Setting
	section, open := "", ""
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if more, goesOn := strings.CutSuffix(line, "\\"); goesOn {
			open += more + " "
			continue
		}
		line, open = open+line, ""
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		if key, value, found := strings.Cut(line, "="); found {
			settings = append(settings, Setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return settings
}

// Template is the file of an instance, and what stands for %i; "" of what is none.
func Template(name string) (file, instance string) {
	prefix, rest, found := strings.Cut(name, "@")
	dot := strings.LastIndex(rest, ".")
	if !found || dot < 1 {
		return "", ""
	}
	return prefix + "@" + rest[dot:], rest[:dot]
}
