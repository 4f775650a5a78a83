// SPDX-License-Identifier: Apache-2.0

package attest

import "regexp"

// EKClass says who vouches for an endorsement key, and for what kind of TPM.
type EKClass string

// The classes, from the strongest to the weakest.
const (
	ClassHardware    EKClass = "hardware"    // a chip of its own
	ClassFirmware    EKClass = "firmware"    // a program in the platform's firmware
	ClassVirtual     EKClass = "virtual"     // a program of a hypervisor, or an emulator
	ClassUncertified EKClass = "uncertified" // nobody vouches: an operator listed the key
)

// Known reports whether c is one of the classes.
func (c EKClass) Known() bool {
	return c == ClassHardware || c == ClassFirmware || c == ClassVirtual || c == ClassUncertified
}

// hostName is one DNS label: a dot in it would let one host's name contain
// another's.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckHostName says whether name can be a host's: one label of a-z, 0-9 and -,
// and neither root nor default, which are OpenBao's.
func CheckHostName(name string) error {
	if len(name) > MaxWantedName {
		return Refuse(RuleSize, "host name of %d bytes", len(name))
	}
	if !hostName.MatchString(name) || name == "root" || name == "default" {
		return Refuse(RuleSyntax, "not a host name")
	}
	return nil
}
