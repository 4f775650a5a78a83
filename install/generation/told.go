// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"fmt"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/record"
)

// Told is what a component was told when a set was installed: enough to tell it
// again.
type Told struct {
	Profile  string            `json:"profile"`
	Mode     keylime.Mode      `json:"mode,omitempty"`
	Settings []keylime.Setting `json:"settings"`
	UID      int               `json:"uid"`
	GID      int               `json:"gid"`
	Groups   []int             `json:"groups,omitempty"`
}

func (t Told) check() error {
	if !record.IsName(t.Profile) || len(t.Settings) > record.MaxEntries || len(t.Groups) > record.MaxFiles || t.UID < 0 || t.GID < 0 {
		return fmt.Errorf("record of impossible settings of %q", t.Profile)
	}
	return nil
}

// Again is the drop-in of what was told; false for a profile that is not known.
func (t Told) Again() (keylime.DropIn, bool) {
	profile, known := keylime.Find(t.Profile)
	return keylime.DropIn{Profile: profile, Mode: t.Mode, Settings: t.Settings, UID: t.UID, GID: t.GID, Groups: t.Groups}, known
}

func tell(drops []keylime.DropIn) []Told {
	var all []Told
	for _, d := range drops {
		all = append(all, Told{Profile: d.Profile.Name, Mode: d.Mode, Settings: d.Settings, UID: d.UID, GID: d.GID, Groups: d.Groups})
	}
	return all
}
