// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/google/go-attestation/attest"
	ekx509 "github.com/google/go-attestation/x509"

	"funlab.casa/omen/bench/proof"
)

// goAttestation verifies the same proof with go-attestation, by the functions
// that its documentation names for each step.
type goAttestation struct {
	chain  x509.VerifyOptions
	ek     []byte
	ak     attest.AttestationParameters
	quote  attest.Quote
	nonce  []byte
	values [][]byte
	log    []byte
}

func newGoAttestation(m *proof.Machine, p *proof.Proof, c *proof.Creation, nonce []byte) *goAttestation {
	g := &goAttestation{
		chain: x509.VerifyOptions{
			Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		},
		ek: p.Request.EKCertificate,
		ak: attest.AttestationParameters{
			Public: p.Request.AKPublic, CreateData: c.Data,
			CreateAttestation: c.Attestation, CreateSignature: c.Signature,
		},
		quote:  attest.Quote{Quote: p.Login.Quote, Signature: p.Login.Signature},
		nonce:  nonce,
		values: p.Login.PCRs,
		log:    p.Login.EventLog,
	}
	g.chain.Roots.AddCert(m.Root)
	g.chain.Intermediates.AddCert(m.Issuer)
	return g
}

func (g *goAttestation) verify() error {
	key, err := g.checkEK()
	if err != nil {
		return err
	}
	activation := attest.ActivationParameters{EK: key, AK: g.ak}
	if _, _, err := activation.Generate(); err != nil {
		return err
	}
	ak, err := attest.ParseAKPublic(g.ak.Public)
	if err != nil {
		return err
	}
	pcrs := make([]attest.PCR, len(g.values))
	for i, value := range g.values {
		pcrs[i] = attest.PCR{Index: i, Digest: value, DigestAlg: crypto.SHA256}
	}
	if err := ak.VerifyAll([]attest.Quote{g.quote}, pcrs, g.nonce); err != nil {
		return err
	}
	log, err := attest.ParseEventLog(g.log)
	if err != nil {
		return err
	}
	_, err = log.Verify(pcrs)
	return err
}

func (g *goAttestation) checkEK() (crypto.PublicKey, error) {
	certificate, err := attest.ParseEKCertificate(g.ek)
	if err != nil {
		return nil, err
	}
	ek, err := ekx509.ToEKCertificate(certificate)
	if err != nil {
		return nil, err
	}
	if !ek.HasEkcExtendedKeyUsage {
		return nil, errors.New("no extended key usage of an EK")
	}
	_, err = ek.Verify(g.chain)
	return ek.PublicKey, err
}
