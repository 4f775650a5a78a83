// SPDX-License-Identifier: Apache-2.0

package world

// A SeedRenewal is the renewal of before Omen, byte for byte: a script with a
// token in it, and the unit and timer that start it once a day.
type SeedRenewal struct{ Script, Service, Timer []byte }

// Where the seed has them.
const (
	SeedScriptFile  = "/usr/local/bin/renew-keylime-certs.sh"
	SeedServiceFile = "/etc/systemd/system/renew-keylime-certs.service"
	SeedTimerFile   = "/etc/systemd/system/renew-keylime-certs.timer"
)

// ReadSeedRenewal returns the three files.
func ReadSeedRenewal() (r SeedRenewal, err error) {
	for name, into := range map[string]*[]byte{"script": &r.Script, "service": &r.Service, "timer": &r.Timer} {
		if *into, err = seedFiles.ReadFile("testdata/seed/renew-keylime-certs." + name); err != nil {
			return r, err
		}
	}
	return r, nil
}
