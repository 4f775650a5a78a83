// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"funlab.casa/omen/install/unitfile"
)

// What starts a service by itself, with the section that may name the service.
var triggers = map[string]string{".timer": "Timer", ".path": "Path"}

// states is which units are switched on.
type states struct {
	enabled map[string]string // by which folder
	running map[string]bool
}

// units finds timers and paths whose service renews, and services that renew
// without one.
func (l *look) units() []Rival {
	on := l.states()
	var found []Rival
	started := map[string]bool{}
	for _, name := range l.unitNames(on) {
		if section := triggers[suffix(name)]; section != "" {
			rival, service, ok := l.trigger(name, section, on)
			if ok {
				found = append(found, rival)
				started[service] = true
			}
		}
	}
	for _, name := range l.unitNames(on) {
		if suffix(name) != ".service" || started[name] {
			continue
		}
		if rival, ok := l.service(name, on); ok {
			found = append(found, rival)
		}
	}
	return found
}

func suffix(name string) string {
	if dot := strings.LastIndex(name, "."); dot >= 0 {
		return name[dot:]
	}
	return ""
}

// states reads the links that enable units, and those by which systemd says which
// services run (/run/systemd/units).
func (l *look) states() states {
	on := states{enabled: map[string]string{}, running: map[string]bool{}}
	for _, folder := range unitfile.Folders {
		for _, name := range l.files.folder(folder) {
			switch suffix(name) {
			case ".wants", ".requires", ".upholds":
				for _, link := range l.files.folder(folder + "/" + name) {
					if _, known := on.enabled[link]; !known {
						on.enabled[link] = folder
					}
				}
			}
		}
	}
	for _, name := range l.files.folder("/run/systemd/units") {
		if unit, found := strings.CutPrefix(name, "invocation:"); found {
			on.running[unit] = true
		}
	}
	return on
}

// active reports that a unit is enabled, or active now. A transient unit is there
// as long as it is.
func (l *look) active(u unit, on states) bool {
	if on.enabled[u.name] != "" || on.running[u.name] || u.folder == unitfile.TransientFolder {
		return true
	}
	if l.Active == nil {
		return false
	}
	active, err := l.Active(l.files.ctx, []string{u.name})
	if err != nil {
		l.files.fail(err)
	}
	return len(active) > 0
}

// unitNames lists every unit: by its file, and instances by what is switched on.
func (l *look) unitNames(on states) []string {
	all := map[string]bool{}
	for _, folder := range unitfile.Folders {
		for _, name := range l.files.folder(folder) {
			if suffix(name) == ".service" || triggers[suffix(name)] != "" {
				all[name] = true
			}
		}
	}
	for _, some := range []map[string]bool{on.running, keys(on.enabled)} {
		for name := range some {
			if strings.Contains(name, "@") {
				all[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func keys(m map[string]string) map[string]bool {
	set := map[string]bool{}
	for key := range m {
		set[key] = true
	}
	return set
}

// trigger judges a timer or path by the service that it starts.
func (l *look) trigger(name, section string, on states) (found Rival, service string, ok bool) {
	u, loaded := l.load(name)
	if !loaded {
		return Rival{}, "", false
	}
	service = u.service(section)
	started, loaded := l.load(service)
	if !loaded {
		return Rival{}, "", false
	}
	e := l.commands(started.starts(), l.text("it", started.others()), l.started)
	if e.strength == nothing {
		return Rival{}, "", false
	}
	return Rival{
		Name: name, Active: e.strength >= names && l.active(u, on),
		Reason: fmt.Sprintf("it starts %s, and %s", service, e.reason), Disable: u.disable(on), Remarks: e.remarks,
	}, service, true
}

// service judges a service that no timer starts: to name the folder is what every
// service does that reads there, so it must ask for certificates too.
func (l *look) service(name string, on states) (Rival, bool) {
	u, loaded := l.load(name)
	if !loaded {
		return Rival{}, false
	}
	e := l.commands(u.starts(), l.text("it", u.others()), l.started)
	if e.strength < renews {
		return Rival{}, false
	}
	return Rival{Name: name, Active: l.active(u, on), Reason: e.reason, Disable: u.disable(on), Remarks: e.remarks}, true
}

// service is what a timer or path starts.
func (u unit) service(section string) string {
	if named := u.value(section, "Unit"); named != "" {
		return named
	}
	return strings.TrimSuffix(u.name, suffix(u.name)) + ".service"
}

// disable is the command that switches a unit off.
func (u unit) disable(on states) string {
	switch {
	case u.folder == unitfile.TransientFolder:
		return "systemctl stop " + u.name
	case isVendors(on.enabled[u.name]):
		return "systemctl mask --now " + u.name
	}
	return "systemctl disable --now " + u.name
}
