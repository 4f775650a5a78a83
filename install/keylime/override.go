// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"funlab.casa/omen/install/remedy"
)

// ErrOverridden means that something read after our drop-in sets our settings.
var ErrOverridden = errors.New("setting is overridden")

// CheckOverrides returns ErrOverridden when a file that is read after our
// drop-in, or one of the service's environment variables ("NAME=value"), decides
// one of its settings.
func (d DropIn) CheckOverrides(root string, environment []string) error {
	conf := filepath.Join(root, ConfigDir, d.Profile.Component+".conf.d")
	for _, path := range dropIns(conf) {
		if filepath.Base(path) <= DropInFile {
			continue
		}
		values, err := d.Profile.read(path)
		if err != nil {
			return err
		}
		for _, setting := range d.Settings {
			if _, set := values[setting.Key]; set {
				return remedy.Errorf("take the setting out of that file, or give the file a name before "+DropInFile,
					"%s: %s: %w", path, setting.Key, ErrOverridden)
			}
		}
	}
	return d.checkEnvironment(environment)
}

func (d DropIn) checkEnvironment(environment []string) error {
	prefix := "KEYLIME_" + strings.ToUpper(d.Profile.Component) + "_"
	decides := map[string]bool{prefix + "CONFIG": true}
	for _, setting := range d.Settings {
		decides[prefix+strings.ToUpper(setting.Key)] = true
	}
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if decides[name] {
			return remedy.Errorf("take the variable out of the unit", "environment variable %s: %w", name, fmt.Errorf("%s: %w", d.Profile.Component, ErrOverridden))
		}
	}
	return nil
}
