// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
)

// FromDigest is the State of which nothing but the quoted digest is known. It is
// enough for a policy that [Policy.Needs] no log.
func FromDigest(selection attest.Selection, pcrDigest [sha256.Size]byte) *State {
	return &State{
		Bank: selection.Bank, PCRs: slices.Clone(selection.PCRs),
		PCRDigest:        hex.EncodeToString(pcrDigest[:]),
		SecureBoot:       eventlog.SecureBootUnknown,
		SecureBootReason: "no event log",
	}
}

// Observe makes a State of the values that a quote selected, in the selection's
// order, and of the event log; a nil log is that of a host whose firmware gives
// none. pcrDigest is the quote's: SHA-256, the hash of the AK's scheme, over the
// values, whatever their bank (TPM 2.0 Part 3, 18.4).
//
// The errors are *[attest.Refusal]: pcr-selection for a selection that is none,
// pcr-digest for values that are not the quoted ones, event-log for a log that
// is malformed or does not explain them.
func Observe(selection attest.Selection, values [][]byte, pcrDigest [sha256.Size]byte, log []byte) (*State, error) {
	if err := selection.Check(); err != nil {
		return nil, err
	}
	if err := checkValues(selection, values, pcrDigest); err != nil {
		return nil, err
	}
	s := FromDigest(selection, pcrDigest)
	for _, v := range values {
		s.Values = append(s.Values, hex.EncodeToString(v))
	}
	if log == nil {
		return s, nil
	}
	parsed, err := eventlog.Parse(log, selection.Bank)
	if err != nil {
		return nil, err
	}
	proven, err := parsed.Against(selection, values)
	if err != nil {
		return nil, err
	}
	s.explain(proven)
	return s, nil
}

func checkValues(selection attest.Selection, values [][]byte, want [sha256.Size]byte) error {
	if len(values) != len(selection.PCRs) {
		return attest.Refuse(attest.RulePCRDigest, "%d values of %d PCRs", len(values), len(selection.PCRs))
	}
	h, size := sha256.New(), selection.Hash().Size()
	for i, v := range values {
		if len(v) != size {
			return attest.Refuse(attest.RulePCRDigest, "PCR %d: value of %d bytes", selection.PCRs[i], len(v))
		}
		h.Write(v)
	}
	if [sha256.Size]byte(h.Sum(nil)) != want {
		return attest.Refuse(attest.RulePCRDigest, "values do not hash to the quoted digest")
	}
	return nil
}

// explain adds what the log proves.
func (s *State) explain(proven *eventlog.Proven) {
	s.Log = true
	boot := proven.SecureBoot()
	s.SecureBoot, s.SecureBootReason = boot.State, boot.Reason
	if len(boot.Keys) > 0 {
		s.Keys = make(map[string]string, len(boot.Keys))
	}
	for name, sum := range boot.Keys {
		s.Keys[name] = hex.EncodeToString(sum[:])
	}
	components, more := proven.Components(MaxComponents)
	s.MoreComponents = more
	for _, c := range components {
		s.Components = append(s.Components, Component{
			PCR: c.PCR, Event: c.Event, Digest: hex.EncodeToString(c.Digest), Name: c.Name,
		})
	}
}
