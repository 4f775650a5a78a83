// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Login is what a host puts into one login. Its functions are where it lies; each
// may be nil, and then the host is honest.
type Login struct {
	Role, Audience string
	Keys           [][]byte // DER SubjectPublicKeyInfo, claimed
	Resident       []*Key   // certified by the AK
	Measured       bool     // send PCR values and event log
	Ticket         attest.Ticket
	WantedName     string
	Secret         []byte // taken for S, where the TPM would have to unwrap it

	// Binding changes what the quote is bound to.
	Binding func(*attest.Binding)
	// Quote changes the quote before the AK signs it.
	Quote func(*Attestation)
	// CertifyBinding changes what certifications are bound to.
	CertifyBinding func(*attest.Binding)
	// Certify changes a certification before the AK signs it.
	Certify func(*Attestation)
	// Sign replaces the AK's signature over quote and certifications.
	Sign func(raw []byte) ([]byte, error)
	// Log changes the event log before its hash is quoted.
	Log func([]byte) []byte
	// Message changes the finished message.
	Message func(*attest.LoginRequest)
}

// Request is the message that asks for a challenge.
func (t *TPM) Request(role string) (*attest.ChallengeRequest, error) {
	m := &attest.ChallengeRequest{V: attest.Version, Role: role, AKPublic: bytes.Clone(t.AK.Public)}
	if t.EKCertificate != nil {
		m.EKCertificate, m.Intermediates = bytes.Clone(t.EKCertificate), slices.Clone(t.Intermediates)
		return m, nil
	}
	var err error
	m.EKPublic, err = t.EKPublic()
	return m, err
}

// Answer proves the TPM for a challenge, as l says.
func (t *TPM) Answer(c *attest.Challenge, l Login) (*attest.LoginRequest, error) {
	b, err := t.bind(c, l)
	if err != nil {
		return nil, err
	}
	m := &attest.LoginRequest{
		V: attest.Version, Role: l.Role, Challenge: bytes.Clone(c.Challenge), Audience: b.Audience,
		Keys: b.Keys, Ticket: b.Ticket, WantedName: l.WantedName, EventLogHash: make([]byte, sha256.Size),
	}
	if err := t.measurements(m, c.PCRSelection, l); err != nil {
		return nil, err
	}
	b.EventLogHash = [sha256.Size]byte(m.EventLogHash)
	if m.Certify, err = t.certifications(b, l); err != nil {
		return nil, err
	}
	if l.Binding != nil {
		l.Binding(&b)
	}
	extraData := attest.QuoteBinding(b)
	quote := t.Quote(extraData[:], c.PCRSelection)
	if l.Quote != nil {
		l.Quote(&quote)
	}
	m.Quote = quote.Bytes()
	if m.Signature, err = t.sign(m.Quote, l); err != nil {
		return nil, err
	}
	if l.Message != nil {
		l.Message(m)
	}
	return m, nil
}

// bind gathers what the quote vouches for, but the event log.
func (t *TPM) bind(c *attest.Challenge, l Login) (attest.Binding, error) {
	b := attest.Binding{Kind: c.Kind, Secret: c.Nonce, Audience: l.Audience, Keys: slices.Clone(l.Keys), Ticket: l.Ticket}
	for _, k := range l.Resident {
		b.Keys = append(b.Keys, k.SPKI)
	}
	slices.SortFunc(b.Keys, bytes.Compare)
	var err error
	switch {
	case l.Secret != nil:
		b.Secret = l.Secret
	case c.Kind == attest.KindActivate:
		b.Secret, err = t.Activate(c.Credential)
	}
	return b, err
}

func (t *TPM) measurements(m *attest.LoginRequest, s attest.Selection, l Login) error {
	log, err := t.EventLog()
	if err != nil {
		return err
	}
	if l.Log != nil {
		log = l.Log(bytes.Clone(log))
	}
	if log != nil {
		h := sha256.Sum256(log)
		m.EventLogHash = h[:]
	}
	if l.Measured {
		m.PCRs, m.EventLog = slices.Clone(t.values(s)), log
	}
	return nil
}

func (t *TPM) certifications(b attest.Binding, l Login) ([]*attest.Certification, error) {
	if l.Resident == nil {
		return nil, nil
	}
	list := make([]*attest.Certification, len(b.Keys))
	keys := b.Keys
	if l.CertifyBinding != nil {
		l.CertifyBinding(&b)
	}
	for _, k := range l.Resident {
		extraData := attest.CertifyBinding(b, k.SPKI)
		said := t.Certify(extraData[:], k.Name, tpm2.TPMRHOwner)
		if l.Certify != nil {
			l.Certify(&said)
		}
		info := said.Bytes()
		signed, err := t.sign(info, l)
		if err != nil {
			return nil, err
		}
		i, _ := slices.BinarySearchFunc(keys, k.SPKI, bytes.Compare)
		list[i] = &attest.Certification{Info: info, Signature: signed}
	}
	return list, nil
}

func (t *TPM) sign(raw []byte, l Login) ([]byte, error) {
	if l.Sign != nil {
		return l.Sign(raw)
	}
	return t.AK.Sign(raw)
}

// Challenge asks a server for a challenge.
func (t *TPM) Challenge(ctx context.Context, s Server, role string) (*attest.Challenge, error) {
	m, err := t.Request(role)
	if err != nil {
		return nil, err
	}
	message, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	answer, err := s.Challenge(ctx, message)
	if err != nil {
		return nil, err
	}
	return answer.Challenge()
}

// Attest is one whole login, challenge and proof, as an honest client does it:
// it starts over once where a fresh challenge may help, with PCR values and event
// log if they are wanted. It gives the server's last answer, a refusal too.
func (t *TPM) Attest(ctx context.Context, s Server, l Login) (*Answer, error) {
	answer, err := t.attest(ctx, s, l)
	if err != nil {
		return nil, err
	}
	if rule := answer.Rule(); rule.StartOver() {
		l.Measured = l.Measured || rule == attest.RuleEventLogNeeded
		return t.attest(ctx, s, l)
	}
	return answer, nil
}

func (t *TPM) attest(ctx context.Context, s Server, l Login) (*Answer, error) {
	c, err := t.Challenge(ctx, s, l.Role)
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Answer, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := t.Answer(c, l)
	if err != nil {
		return nil, fmt.Errorf("answer challenge: %w", err)
	}
	return send(ctx, s, m)
}

// send logs in with a finished message.
func send(ctx context.Context, s Server, m *attest.LoginRequest) (*Answer, error) {
	message, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return s.Login(ctx, message)
}
