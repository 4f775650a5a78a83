// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"fmt"
)

// Mode is what a failed check does.
type Mode string

// The modes. Every other word, the empty one too, enforces.
const (
	Off     Mode = "off"     // not judged
	Monitor Mode = "monitor" // judged and told, refuses nobody
	Enforce Mode = "enforce" // refuses
)

// ParseMode reads one of the three words.
func ParseMode(word string) (Mode, error) {
	if m := Mode(word); m == Off || m == Monitor || m == Enforce {
		return m, nil
	}
	return Enforce, fmt.Errorf("mode is off, monitor or enforce, not %q", word)
}

// effective makes every unknown word enforce.
func (m Mode) effective() Mode {
	if m == Off || m == Monitor {
		return m
	}
	return Enforce
}

// Check is the name of one statement about a State.
type Check string

// The checks, in the order in which they are judged.
const (
	PCRValues      Check = "pcr-values"       // the PCR digest is that of a live entry or list
	SecureBoot     Check = "secure-boot"      // Secure Boot is on
	SecureBootKeys Check = "secure-boot-keys" // PK, KEK, db and dbx are each in a live entry or list
	BootComponents Check = "boot-components"  // each component is in a live entry or list
)

// Policy is what a role demands of a State. The zero Policy refuses every one.
type Policy struct {
	PCRValues      Mode `json:"pcr_values"`
	SecureBoot     Mode `json:"secure_boot"`
	SecureBootKeys Mode `json:"secure_boot_keys"`
	BootComponents Mode `json:"boot_components"`

	Baselines []Baseline `json:"baselines,omitempty"` // the role's
	// HostDigests are PCR digests that this one host may have besides.
	HostDigests []string `json:"host_digests,omitempty"`
}

// Needs says what a State must be made of for a policy to judge it.
type Needs struct {
	Digest bool // of the PCRs: every quote has it; with it alone FromDigest will do
	Log    bool // values and event log
}

// Needs says what must be sent. When neither is needed, everything is accepted.
// The values help to explain a refusal even where the digest decides.
func (p *Policy) Needs() Needs {
	log := false
	for _, m := range []Mode{p.SecureBoot, p.SecureBootKeys, p.BootComponents} {
		log = log || m.effective() != Off
	}
	return Needs{Digest: log || p.PCRValues.effective() != Off, Log: log}
}

// EnforcesLog reports whether a check that reads the event log can refuse.
func (p *Policy) EnforcesLog() bool {
	return p.SecureBoot.effective() == Enforce || p.SecureBootKeys.effective() == Enforce || p.BootComponents.effective() == Enforce
}

func (p *Policy) modes() []string {
	return []string{
		string(p.PCRValues.effective()), string(p.SecureBoot.effective()),
		string(p.SecureBootKeys.effective()), string(p.BootComponents.effective()),
	}
}
