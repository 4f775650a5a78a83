// SPDX-License-Identifier: Apache-2.0

package eventlog

import "bytes"

// startupLocality begins the data of the event that says from which locality
// TPM2_Startup came (TCG PC Client Platform Firmware Profile, "StartupLocality
// Event"): PCR 0 begins with that number instead of zero (TPM 2.0 Part 3, 9.3).
const startupLocality = "StartupLocality\x00"

// startup collects the locality. The event is not measured and need not be: a
// wrong one gives another replay.
type startup struct {
	locality byte
	told     bool
	begun    bool // PCR 0 was extended
}

func (s *startup) see(e Event) error {
	if e.PCR != 0 {
		return nil
	}
	if e.Extends() {
		s.begun = true
		return nil
	}
	rest, ok := bytes.CutPrefix(e.Data, []byte(startupLocality))
	if !ok {
		return nil
	}
	if s.told || s.begun {
		return refuse("event %d: StartupLocality twice or after an extend of PCR 0", e.Index)
	}
	// 0 is the usual start, 3 that of a dynamic root, 4 stands for an H-CRTM.
	if len(rest) != 1 || rest[0] != 0 && rest[0] != 3 && rest[0] != 4 {
		return refuse("event %d: StartupLocality is not 0, 3 or 4", e.Index)
	}
	s.told, s.locality = true, rest[0]
	return nil
}
