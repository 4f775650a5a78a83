// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/remedy"
)

// ErrCannotStart means that a service would not come back if it were stopped now.
var ErrCannotStart = errors.New("the service could not start again")

// Startable asks systemd whether the unit may be stopped and started, whether its
// programs are there for its user, and whether its sandbox leaves it these paths.
// What only the start itself can tell (a condition, a unit that it requires) it
// does not know.
func (u *Unit) Startable(ctx context.Context, paths []string) error {
	state, err := loadState(ctx, u.bus, u.name)
	if err != nil {
		return err
	}
	if state != "loaded" {
		return cannotUse(u.name, state)
	}
	properties, err := u.bus.GetAllPropertiesContext(ctx, u.name)
	if err != nil {
		return fmt.Errorf("unit %s: %w", u.name, err)
	}
	for _, refused := range []string{"RefuseManualStart", "RefuseManualStop"} {
		if properties[refused] == true {
			return remedy.Errorf("take "+refused+"= out of the unit", "unit %s: %w: %s is set", u.name, ErrCannotStart, refused)
		}
	}
	if err := u.checkPrograms(properties); err != nil {
		return remedy.Errorf("systemctl cat "+u.name+" shows ExecStart; after a change: systemctl daemon-reload", "unit %s: %w: %w", u.name, ErrCannotStart, err)
	}
	for _, name := range paths {
		if by := hiddenBy(properties, name); by != "" {
			return remedy.Errorf("let the unit read "+name+": BindReadOnlyPaths=, or take it out of "+by, "unit %s: %w: %s hides %s", u.name, ErrCannotStart, by, name)
		}
	}
	return nil
}

// checkPrograms looks at each program as who will execute it. Below another root,
// its programs are not where they seem.
func (u *Unit) checkPrograms(properties map[string]any) error {
	if elsewhere(properties) != "" {
		return nil
	}
	commands, _ := properties["ExecStartEx"].([][]any)
	if len(commands) == 0 {
		return errors.New("it has no ExecStart=")
	}
	for _, command := range commands {
		program, flags := commandOf(command)
		who := u.account
		if slices.Contains(flags, "privileged") || slices.Contains(flags, "no-setuid") {
			who.UID = 0
		}
		if slices.Contains(flags, "ignore-failure") || !path.IsAbs(program) {
			continue
		}
		if err := checkExecutable("/", who, program); err != nil {
			return err
		}
	}
	return nil
}

// commandOf reads path and flags of a command (org.freedesktop.systemd1(5):
// path, arguments, flags and the times and results of its last run).
func commandOf(command []any) (program string, flags []string) {
	if len(command) > 2 {
		program, _ = command[0].(string)
		flags, _ = command[2].([]string)
	}
	return program, flags
}

// elsewhere names the setting by which a unit has another root.
func elsewhere(properties map[string]any) string {
	for _, name := range []string{"RootDirectory", "RootImage"} {
		if value, _ := properties[name].(string); value != "" {
			return name
		}
	}
	return ""
}

// hiddenBy names the setting of a sandbox that keeps a path from the service, ""
// for none (systemd.exec(5), "Sandboxing"). What only makes it read-only does not.
func hiddenBy(properties map[string]any, name string) string {
	if boundIn(properties, name) {
		return ""
	}
	if by := elsewhere(properties); by != "" {
		return by
	}
	for _, setting := range []string{"InaccessiblePaths", "TemporaryFileSystem"} {
		for _, entry := range pathsOf(properties[setting]) {
			if isBelow(name, entry) {
				return setting
			}
		}
	}
	hides := map[string][]string{}
	if home, _ := properties["ProtectHome"].(string); home == "yes" || home == "tmpfs" {
		hides["ProtectHome"] = []string{"/home", "/root", "/run/user"}
	}
	if properties["PrivateTmp"] == true {
		hides["PrivateTmp"] = []string{"/tmp", "/var/tmp"}
	}
	for setting, folders := range hides {
		if slices.ContainsFunc(folders, func(folder string) bool { return isBelow(name, folder) }) {
			return setting
		}
	}
	return ""
}

// boundIn reports that a path is bound into the sandbox.
func boundIn(properties map[string]any, name string) bool {
	for _, setting := range []string{"BindPaths", "BindReadOnlyPaths"} {
		binds, _ := properties[setting].([][]any)
		for _, bind := range binds { // source, destination, whether it may be missing, flags
			if len(bind) > 1 {
				if destination, _ := bind[1].(string); destination != "" && isBelow(name, destination) {
					return true
				}
			}
		}
	}
	return false
}

// pathsOf reads a list of paths, or of pairs of path and options.
func pathsOf(property any) []string {
	var paths []string
	switch entries := property.(type) {
	case []string:
		for _, entry := range entries {
			paths = append(paths, strings.TrimLeft(entry, "-+"))
		}
	case [][]any:
		for _, entry := range entries {
			if len(entry) > 0 {
				name, _ := entry[0].(string)
				paths = append(paths, name)
			}
		}
	}
	return paths
}

func isBelow(name, folder string) bool {
	folder = path.Clean(folder)
	return name == folder || folder == "/" || strings.HasPrefix(name, folder+"/")
}
