// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"slices"
	"strings"

	"funlab.casa/omen/install/unitfile"
)

// isVendors: what is enabled here is so for everybody, and can only be masked.
func isVendors(folder string) bool {
	return strings.HasPrefix(folder, "/usr/lib/") || strings.HasPrefix(folder, "/lib/") || strings.HasPrefix(folder, "/usr/local/lib/")
}

// unit is a unit file with its drop-ins.
type unit struct {
	name     string
	folder   string // of the file
	settings []unitfile.Setting
}

// load reads a unit; false where there is none, or it is masked.
func (l *look) load(name string) (unit, bool) {
	file, instance := name, ""
	folder, content := l.find(file)
	if folder == "" {
		file, instance = unitfile.Template(name)
		if folder, content = l.find(file); folder == "" {
			return unit{}, false
		}
	}
	if strings.TrimSpace(content) == "" {
		return unit{}, false // masked
	}
	u := unit{name: name, folder: folder, settings: unitfile.Parse(content)}
	for _, drop := range l.dropIns(name, file) {
		u.settings = append(u.settings, unitfile.Parse(drop)...)
	}
	if instance != "" {
		for at := range u.settings {
			u.settings[at].Value = strings.NewReplacer("%i", instance, "%I", instance).Replace(u.settings[at].Value)
		}
	}
	return u, true
}

// find returns the first folder that has a file, and the file; one that is masked
// is empty.
func (l *look) find(file string) (folder, content string) {
	for _, folder := range unitfile.Folders {
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

// dropIns reads the drop-ins of a unit, in the order of their names.
func (l *look) dropIns(names ...string) []string {
	chosen := map[string]string{}
	for _, name := range names {
		for _, folder := range unitfile.Folders {
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

// value is the last value of a key.
func (u unit) value(section, key string) string {
	last := ""
	for _, s := range u.settings {
		if s.Section == section && s.Key == key {
			last = s.Value
		}
	}
	return last
}

// starts are the commands of a service. An empty value takes back those before it.
func (u unit) starts() []string {
	var all []unitfile.Setting
	for _, s := range u.settings {
		if s.Section != "Service" || !strings.HasPrefix(s.Key, "Exec") || s.Key == "ExecSearchPath" {
			continue
		}
		if s.Value == "" {
			all = slices.DeleteFunc(all, func(before unitfile.Setting) bool { return before.Key == s.Key })
			continue
		}
		all = append(all, s)
	}
	var starts []string
	for _, s := range all {
		starts = append(starts, s.Value)
	}
	return starts
}

// others is the rest of a service's text, without what only looks or only keeps
// away.
func (u unit) others() string {
	var rest strings.Builder
	for _, s := range u.settings {
		quiet := strings.HasPrefix(s.Key, "Exec") || strings.HasPrefix(s.Key, "Condition") || strings.HasPrefix(s.Key, "Assert") ||
			slices.Contains([]string{"Description", "Documentation", "ReadOnlyPaths", "InaccessiblePaths", "BindReadOnlyPaths", "LoadCredential"}, s.Key)
		if !quiet {
			rest.WriteString(s.Key + "=" + s.Value + "\n")
		}
	}
	return rest.String()
}
