// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"crypto/rsa"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// Attestation is a TPMS_ATTEST field by field.
type Attestation = attacker.Attestation

// PCRs is one TPMS_PCR_SELECTION.
type PCRs = attacker.PCRs

// Liar is a TPM of package attacker with an RSA-2048 endorsement key, for tests
// of the verifier: what fails, fails the test. It does not change by being used.
type Liar struct {
	EK            *rsa.PrivateKey
	EKCertificate []byte
	AK            *attest.AK
	tpm           *attacker.TPM
}

// NewLiar makes a TPM that v certifies.
func NewLiar(t testing.TB, v *Vendor) *Liar {
	t.Helper()
	tpm, err := attacker.NewTPM(nil, attacker.RSA2048)
	check(t, err)
	ek, ok := tpm.EK.(*rsa.PrivateKey)
	if !ok {
		t.Fatalf("EK of type %T", tpm.EK)
	}
	l := &Liar{EK: ek, EKCertificate: v.Certify(t, ek.Public(), nil), tpm: tpm}
	l.setAK(t)
	return l
}

func (l *Liar) setAK(t testing.TB) {
	t.Helper()
	ak, err := attest.ParseAK(l.tpm.AK.Public)
	check(t, err)
	l.AK = ak
}

// NewAK gives the TPM another attestation key, as no TPM does by itself.
func (l *Liar) NewAK(t testing.TB) {
	t.Helper()
	l.tpm = l.tpm.Clone() // l may be a copy of a liar that keeps its key
	check(t, l.tpm.NewAK())
	l.setAK(t)
}

// StealAK makes l sign with the attestation key of another TPM.
func (l *Liar) StealAK(from *Liar) {
	l.tpm = l.tpm.Clone()
	l.tpm.AK, l.AK = from.tpm.AK, from.AK
}

// TPM is a copy of what lies here, for what this type does not offer.
func (l *Liar) TPM() *attacker.TPM {
	tpm := l.tpm.Clone()
	tpm.EKCertificate = l.EKCertificate
	return tpm
}

// Request is the message that asks for a challenge.
func (l *Liar) Request(role string) attest.ChallengeRequest {
	return attest.ChallengeRequest{V: 1, Role: role, EKCertificate: l.EKCertificate, AKPublic: l.AK.Public()}
}

// Answer is the honest answer to a challenge, over no keys.
func (l *Liar) Answer(t testing.TB, c attest.Challenge, role, audience string) attest.LoginRequest {
	t.Helper()
	return l.AnswerWith(t, c, attest.LoginRequest{V: 1, Role: role, Audience: audience}, nil)
}

// AnswerWith fills in challenge, quote and signature of a login whose other
// fields the test has set, after bend, which may be nil, has had its way with
// what the TPM signs.
func (l *Liar) AnswerWith(t testing.TB, c attest.Challenge, m attest.LoginRequest, bend func(*Attestation)) attest.LoginRequest {
	t.Helper()
	login := attacker.Login{Role: m.Role, Audience: m.Audience, Keys: m.Keys, Ticket: m.Ticket, Quote: bend}
	if c.Kind == attest.KindActivate {
		login.Secret = l.Unwrap(t, c.Credential)
	}
	if m.EventLogHash != nil {
		login.Binding = func(b *attest.Binding) { copy(b.EventLogHash[:], m.EventLogHash) }
	}
	proof, err := l.TPM().Answer(&c, login)
	check(t, err)
	if m.EventLogHash == nil {
		m.EventLogHash = proof.EventLogHash
	}
	m.Challenge, m.Quote, m.Signature = proof.Challenge, proof.Quote, proof.Signature
	return m
}

// Unwrap is TPM2_ActivateCredential; a credential for another EK or AK gives 32
// zero bytes.
func (l *Liar) Unwrap(t testing.TB, c *attest.Credential) []byte {
	t.Helper()
	secret, err := l.tpm.Activate(c)
	if err != nil {
		return make([]byte, attest.SecretSize)
	}
	return secret
}

// Sign is the TPMT_SIGNATURE over raw by the attestation key.
func (l *Liar) Sign(t testing.TB, raw []byte) []byte {
	t.Helper()
	signature, err := l.tpm.AK.Sign(raw)
	check(t, err)
	return signature
}
