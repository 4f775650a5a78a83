// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/attest/verify"
)

// A Proof is one login: what the host said, and what the server remembers of its
// challenge.
type Proof struct {
	Request   attest.ChallengeRequest
	Challenge verify.Challenge
	Login     attest.LoginRequest
	Roots     *verify.Roots // the vendor's, as an operator configures them
}

// selection is what the quotes are over: the PCRs of firmware, boot loader and
// kernel.
var selection = attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}

// First is a host's first login: the EK is activated, and PCR values and event
// log travel with the quote.
func (m *Machine) First(ctx context.Context) (*Proof, error) {
	p, err := m.prove(ctx, attest.KindActivate)
	if err != nil {
		return nil, err
	}
	p.Login.EventLog = m.Log
	for _, pcr := range selection.PCRs {
		value, err := m.tpm.PCR(pcr, tpm2.TPMAlgSHA256)
		if err != nil {
			return nil, err
		}
		p.Login.PCRs = append(p.Login.PCRs, value)
	}
	return p, nil
}

// Renewal is a login of a host that is known: a quote and nothing else.
func (m *Machine) Renewal(ctx context.Context) (*Proof, error) {
	return m.prove(ctx, attest.KindKnown)
}

func (m *Machine) prove(ctx context.Context, kind attest.Kind) (p *Proof, err error) {
	prover, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prover.Close()) }()
	request, err := prover.Request(ctx, "bench")
	if err != nil {
		return nil, err
	}
	p = &Proof{Request: *request}
	challenge, err := p.challenge(m, kind)
	if err != nil {
		return nil, err
	}
	login, err := prover.Login(ctx, host.Claim{Role: "bench", Audience: Audience}, challenge)
	if err != nil {
		return nil, err
	}
	p.Login = *login
	return p, nil
}

// challenge is the server's part.
func (p *Proof) challenge(m *Machine, kind attest.Kind) (*attest.Challenge, error) {
	var err error
	if p.Roots, err = m.roots(); err != nil {
		return nil, err
	}
	ak, err := attest.ParseAK(p.Request.AKPublic)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, attest.SecretSize)
	_, _ = rand.Read(secret)
	p.Challenge = verify.Challenge{Kind: kind, AK: ak, Secret: secret, Selection: selection}
	c := &attest.Challenge{Challenge: make([]byte, sha256.Size), PCRSelection: selection, Kind: kind, Nonce: secret}
	if kind == attest.KindKnown {
		return c, nil
	}
	ek, err := verify.CheckEK(p.Request.EKCertificate, nil, p.Roots, time.Now())
	if err != nil {
		return nil, fmt.Errorf("check EK: %w", err)
	}
	c.Nonce = nil
	c.Credential, err = verify.Credential(rand.Reader, ek, ak, secret)
	return c, err
}

// roots are the vendor's, for emulated TPMs.
func (m *Machine) roots() (*verify.Roots, error) {
	return verify.ParseRoots(map[attest.EKClass][]byte{attest.ClassVirtual: encode(m.Root.Raw)}, encode(m.Issuer.Raw))
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
