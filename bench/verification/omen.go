// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/bootpolicy"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/bench/proof"
)

var audiences = []string{proof.Audience}

// omenFirst is what Omen's server computes for a host's first login, from the
// decoded messages on: EK chain, attestation key, credential, quote, PCR values,
// event log, and the verdict of a policy that names PCR values, boot loader and
// kernel.
func omenFirst(p *proof.Proof, policy *bootpolicy.Policy) error {
	ak, err := attest.ParseAK(p.Request.AKPublic)
	if err != nil {
		return err
	}
	ek, err := verify.CheckEK(p.Request.EKCertificate, p.Request.Intermediates, p.Roots, time.Now())
	if err != nil {
		return err
	}
	secret := make([]byte, attest.SecretSize)
	_, _ = rand.Read(secret)
	if _, err := verify.Credential(rand.Reader, ek, ak, secret); err != nil {
		return err
	}
	quote, err := verify.Login(&p.Login, p.Challenge, audiences)
	if err != nil {
		return err
	}
	state, err := observe(p, quote)
	if err != nil {
		return err
	}
	if verdict := policy.Judge(state, time.Now()); !verdict.Accepted {
		return fmt.Errorf("boot refused: %v", verdict)
	}
	return nil
}

// observe is what the server learns of the boot.
func observe(p *proof.Proof, quote *verify.Quote) (*bootpolicy.State, error) {
	if sha256.Sum256(p.Login.EventLog) != [sha256.Size]byte(p.Login.EventLogHash) {
		return nil, errors.New("the event log is not the quoted one")
	}
	return bootpolicy.Observe(p.Challenge.Selection, p.Login.PCRs, quote.PCRDigest, p.Login.EventLog)
}

// policyFor accepts this proof's boot and no other.
func policyFor(p *proof.Proof) (*bootpolicy.Policy, error) {
	quote, err := verify.Login(&p.Login, p.Challenge, audiences)
	if err != nil {
		return nil, err
	}
	state, err := observe(p, quote)
	if err != nil {
		return nil, err
	}
	return &bootpolicy.Policy{
		PCRValues: bootpolicy.Enforce, BootComponents: bootpolicy.Enforce,
		SecureBoot: bootpolicy.Monitor, SecureBootKeys: bootpolicy.Monitor,
		Baselines: []bootpolicy.Baseline{{Entries: []bootpolicy.Entry{{State: *state, From: "bench"}}}},
	}, nil
}

// omenRenewal is what Omen's server computes for the login of a known host, from
// the decoded messages on. The EK was judged before and is found by its hash.
func omenRenewal(p *proof.Proof) error {
	hash := sha256.Sum256(p.Request.EKCertificate)
	ak, err := attest.ParseAK(p.Request.AKPublic)
	if err != nil || hash == [sha256.Size]byte{} {
		return err
	}
	opened := p.Challenge
	if opened.AK, err = attest.AKFromPoint(ak.Point()); err != nil { // as the sealed challenge holds it
		return err
	}
	_, err = verify.Login(&p.Login, opened, audiences)
	return err
}
