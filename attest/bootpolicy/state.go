// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
)

// MaxComponents bounds the components of a State. A machine with more is beyond
// what boot-components can judge.
const MaxComponents = 64

// State is what one machine booted, as far as its TPM proves it. As JSON it stays
// below 32 KiB. All digests are lower-case hex.
type State struct {
	Bank      string   `json:"bank"`             // "sha256" or "sha384"
	PCRs      []int    `json:"pcrs"`             // the selection
	Values    []string `json:"values,omitempty"` // in the selection's order; absent when only the digest is known
	PCRDigest string   `json:"pcr_digest"`       // SHA-256 over the values, as quoted
	Log       bool     `json:"log"`              // an event log explains the values

	SecureBoot       eventlog.SecureBootState `json:"secure_boot"`
	SecureBootReason string                   `json:"secure_boot_reason,omitempty"` // why it is unknown
	Keys             map[string]string        `json:"keys,omitempty"`               // PK, KEK, db, dbx: SHA-256 of the content; absent: not measured

	Components     []Component `json:"components,omitempty"`
	MoreComponents bool        `json:"more_components,omitempty"` // there were more than MaxComponents
}

// Component is code that was measured before the operating system began. See
// [eventlog.Component].
type Component struct {
	PCR    int    `json:"pcr"`
	Event  int    `json:"event"`  // index in that machine's log
	Digest string `json:"digest"` // in the State's bank
	Name   string `json:"name,omitempty"`
}

// Selection is the selection that was quoted.
func (s *State) Selection() attest.Selection {
	return attest.Selection{Bank: s.Bank, PCRs: s.PCRs}
}

// ID identifies what is measured: hex SHA-256. Two machines with equal IDs
// measured the same; remarks (names, event indexes, reasons) are not in it. An
// operator promotes a State by the ID that was shown.
func (s *State) ID() string {
	h := sha256.New()
	line(h, "omen/1/boot-state", s.Bank, s.PCRs, s.PCRDigest, s.Values, s.Log, string(s.SecureBoot), s.MoreComponents)
	for _, name := range slices.Sorted(maps.Keys(s.Keys)) {
		line(h, "key", name, s.Keys[name])
	}
	for _, c := range s.Components {
		line(h, "component", c.PCR, c.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// line hashes fields in Go syntax: strings are quoted, slices are in brackets, so
// no two lists of fields give the same line.
func line(h hash.Hash, fields ...any) {
	_, _ = fmt.Fprintf(h, "%#v\n", fields) // a hash never errs
}

// sameSelection reports whether two states speak of the same PCRs.
func (s *State) sameSelection(other *State) bool {
	return s.Bank == other.Bank && slices.Equal(s.PCRs, other.PCRs)
}

// SameValues reports whether two states are of the same quoted values, though more
// may be known of one of them.
func (s *State) SameValues(other *State) bool {
	return s.PCRDigest == other.PCRDigest && s.sameSelection(other)
}

// covers reports whether the state's log explains the PCR.
func (s *State) covers(pcr int) bool {
	return s.Log && eventlog.Explained(pcr) && slices.Contains(s.PCRs, pcr)
}

// knowsSecureBoot is false for unknown and for every word that is none.
func (s *State) knowsSecureBoot() bool {
	return s.SecureBoot == eventlog.SecureBootOn || s.SecureBoot == eventlog.SecureBootOff
}

// in returns the components of one PCR.
func (s *State) in(pcr int) []Component {
	var found []Component
	for _, c := range s.Components {
		if c.PCR == pcr {
			found = append(found, c)
		}
	}
	return found
}
