// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"regexp"
)

// maxReaders bounds what a person vouches for by name.
const maxReaders = 32

// unitName is a unit that can be enabled, or started by one (systemd.unit(5)).
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,240}\.(service|timer|path)$`)

// checkReaders refuses what names neither a unit nor a file.
func (c *Config) checkReaders() *fault {
	if len(c.Keylime.Readers) > maxReaders {
		return wrong("keylime", 0, "readers", "at most 32", "%d readers", len(c.Keylime.Readers))
	}
	for _, r := range c.Keylime.Readers {
		if !unitName.MatchString(r) && (!filepath.IsAbs(r) || filepath.Clean(r) != r) {
			return wrong("keylime", 0, "readers", `a unit ("backup.timer") or the full path of a file of cron`, "readers: %q", r)
		}
	}
	return nil
}
