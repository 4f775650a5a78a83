// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"slices"
	"strings"
)

// unitFolders are where systemd finds units of the system, the first counts
// (systemd.unit(5)). What generators make comes from files that are looked at
// themselves.
var unitFolders = []string{
	"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
	"/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// transientFolder holds units that end with the boot and cannot be disabled.
const transientFolder = "/run/systemd/transient"

// isVendors: what is enabled here is so for everybody, and can only be masked.
func isVendors(folder string) bool {
	return strings.HasPrefix(folder, "/usr/lib/") || strings.HasPrefix(folder, "/lib/") || strings.HasPrefix(folder, "/usr/local/lib/")
}

// unit is a unit file with its drop-ins.
type unit struct {
	name     string
	folder   string // of the file
	settings []setting
}

type setting struct{ section, key, value string }

// load reads a unit; false where there is none, or it is masked.
func (l *look) load(name string) (unit, bool) {
	file, instance := name, ""
	folder, content := l.find(file)
	if folder == "" {
		file, instance = template(name)
		if folder, content = l.find(file); folder == "" {
			return unit{}, false
		}
	}
	if strings.TrimSpace(content) == "" {
		return unit{}, false // masked
	}
	u := unit{name: name, folder: folder, settings: parse(content)}
	for _, drop := range l.dropIns(name, file) {
		u.settings = append(u.settings, parse(drop)...)
	}
	if instance != "" {
		for at := range u.settings {
			u.settings[at].value = strings.NewReplacer("%i", instance, "%I", instance).Replace(u.settings[at].value)
		}
	}
	return u, true
}

// find returns the first folder that has a file, and the file; one that is masked
// is empty.
func (l *look) find(file string) (folder, content string) {
	for _, folder := range unitFolders {
		if !l.files.has(folder, file) {
			continue
		}
		if found := l.files.read(folder + "/" + file); found != nil {
			return folder, found.content
		}
		return folder, "" // a link to /dev/null, or to nothing
	}
	return "", ""
}

// template is the file of an instance, and what stands for %i.
func template(name string) (file, instance string) {
	prefix, rest, found := strings.Cut(name, "@")
	dot := strings.LastIndex(rest, ".")
	if !found || dot < 1 {
		return "", ""
	}
	return prefix + "@" + rest[dot:], rest[:dot]
}

// dropIns reads the drop-ins of a unit, in the order of their names.
func (l *look) dropIns(names ...string) []string {
	chosen := map[string]string{}
	for _, name := range names {
		for _, folder := range unitFolders {
			inside := folder + "/" + name + ".d"
			if !l.files.has(folder, name+".d") {
				continue
			}
			for _, file := range l.files.folder(inside) {
				if _, known := chosen[file]; !known && strings.HasSuffix(file, ".conf") {
					chosen[file] = inside + "/" + file
				}
			}
		}
	}
	var order []string
	for file := range chosen {
		order = append(order, file)
	}
	slices.Sort(order)
	var contents []string
	for _, file := range order {
		if found := l.files.read(chosen[file]); found != nil {
			contents = append(contents, found.content)
		}
	}
	return contents
}

// parse reads the settings of a unit file (systemd.syntax(7)).
func parse(content string) []setting {
	var settings []setting
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
			settings = append(settings, setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return settings
}

// value is the last value of a key.
func (u unit) value(section, key string) string {
	last := ""
	for _, s := range u.settings {
		if s.section == section && s.key == key {
			last = s.value
		}
	}
	return last
}

// starts are the commands of a service. An empty value takes back those before it.
func (u unit) starts() []string {
	var all []setting
	for _, s := range u.settings {
		if s.section != "Service" || !strings.HasPrefix(s.key, "Exec") || s.key == "ExecSearchPath" {
			continue
		}
		if s.value == "" {
			all = slices.DeleteFunc(all, func(before setting) bool { return before.key == s.key })
			continue
		}
		all = append(all, s)
	}
	var starts []string
	for _, s := range all {
		starts = append(starts, s.value)
	}
	return starts
}

// others is the rest of a service's text, without what only looks or only keeps
// away.
func (u unit) others() string {
	var rest strings.Builder
	for _, s := range u.settings {
		quiet := strings.HasPrefix(s.key, "Exec") || strings.HasPrefix(s.key, "Condition") || strings.HasPrefix(s.key, "Assert") ||
			slices.Contains([]string{"Description", "Documentation", "ReadOnlyPaths", "InaccessiblePaths", "BindReadOnlyPaths", "LoadCredential"}, s.key)
		if !quiet {
			rest.WriteString(s.key + "=" + s.value + "\n")
		}
	}
	return rest.String()
}
