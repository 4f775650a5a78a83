// SPDX-License-Identifier: Apache-2.0

package order

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"funlab.casa/omen/install/unitfile"
)

// maxName is the longest name of a unit, in bytes (UNIT_NAME_MAX).
const maxName = 255

// serviceName is what systemd takes for the name of a service, of an instance too; a
// template is none (systemd.unit(5)).
var serviceName = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service$`)

// checkUnit refuses what is no name of a service, and our own.
func checkUnit(name string) error {
	switch {
	case !serviceName.MatchString(name) || len(name) > maxName:
		return fmt.Errorf("unit %q is no name of a service", name)
	case name == unitfile.Agent || name == unitfile.Unseal:
		return fmt.Errorf("unit %q is our own", name)
	}
	return nil
}

// maxPath is the longest path, in bytes (PATH_MAX).
const maxPath = 4095

func checkPath(name string) error {
	if !path.IsAbs(name) || path.Clean(name) != name || len(name) > maxPath || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("path %q is not absolute and clean", name)
	}
	return nil
}

// quoted is a path as one word of a setting, and none that must be there: in quotes,
// with what ends them escaped, and % doubled (systemd.syntax(7), systemd.unit(5)).
func quoted(name string) string {
	return `"-` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(name) + `"`
}

// node is a device node whose path needs neither quotes nor escapes.
var node = regexp.MustCompile(`^/dev(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
