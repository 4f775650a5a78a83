// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/subtle"
	"slices"

	"funlab.casa/omen/attest"
)

// Challenge is what the server sealed into the challenge that a login answers.
type Challenge struct {
	Kind      attest.Kind
	AK        *attest.AK
	Secret    []byte // S
	Selection attest.Selection
}

// Login judges a login against the challenge it answers and the audiences the
// server goes by. In this order, each with the rule that refuses:
//
//   - the message is complete and within bounds (size, syntax)
//   - the AK signed the raw quote, algorithm and hash from our template
//     (signature)
//   - the signed bytes are one whole quote that a TPM made (quote-type)
//   - the AK is a primary of the endorsement hierarchy (ak-hierarchy)
//   - extraData binds the kind, S, the audience, the keys and the event log's
//     hash: if not, and S was wrapped, the AK is not in the TPM of the EK
//     (ek-ak); if S was sent in the clear, something is not what was quoted
//     (freshness)
//   - the quote is over exactly the PCRs that were asked for (pcr-selection)
//   - the audience is one of the server's own (audience)
//   - each key said to be in the TPM is certified by the AK for this challenge
//     (key)
//
// The caller opens the challenge before and decides about the host after. A key
// without certification is bound to the quote but not proven: a claim.
func Login(m *attest.LoginRequest, c Challenge, audiences []string) (*Quote, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	q, err := CheckQuote(m.Quote, m.Signature, c.AK)
	if err != nil {
		return nil, err
	}
	if err := checkBinding(q, m, c); err != nil {
		return nil, err
	}
	if !q.covers(c.Selection) {
		return nil, attest.Refuse(attest.RulePCRSelection, "quote over other PCRs than asked for")
	}
	if !slices.Contains(audiences, m.Audience) {
		return nil, attest.Refuse(attest.RuleAudience, "proof made for %q", m.Audience)
	}
	if err := checkCertify(m, c); err != nil {
		return nil, err
	}
	return q, nil
}

// binding is what both the quote and the certifications of a login are bound to.
func binding(m *attest.LoginRequest, c Challenge) attest.Binding {
	b := attest.Binding{Kind: c.Kind, Secret: c.Secret, Audience: m.Audience, Keys: m.Keys, Ticket: m.Ticket}
	copy(b.EventLogHash[:], m.EventLogHash) // 32 bytes, by Check
	return b
}

func checkBinding(q *Quote, m *attest.LoginRequest, c Challenge) error {
	want := attest.QuoteBinding(binding(m, c))
	if subtle.ConstantTimeCompare(want[:], q.ExtraData) == 1 {
		return nil
	}
	if c.Kind == attest.KindActivate {
		return attest.Refuse(attest.RuleEKAK, "extraData does not prove the wrapped secret")
	}
	return attest.Refuse(attest.RuleFreshness, "extraData is not this challenge's with this audience, keys and log")
}
