// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"

	pb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"github.com/google/go-tpm-tools/server"
	"github.com/google/go-tpm/legacy/tpm2"
	"github.com/google/go-tpm/legacy/tpm2/credactivation"

	"funlab.casa/omen/bench/proof"
)

// goTPMTools verifies the same proof with go-tpm-tools. The credential is made
// by go-tpm's own function, on which that library stands: it has none itself.
type goTPMTools struct {
	root, issuer *x509.Certificate
	ek           []byte
	akPublic     []byte
	attestation  *pb.Attestation
	nonce        []byte
}

func newGoTPMTools(m *proof.Machine, p *proof.Proof, nonce []byte) *goTPMTools {
	pcrs := &tpmpb.PCRs{Hash: tpmpb.HashAlgo_SHA256, Pcrs: map[uint32][]byte{}}
	for i, value := range p.Login.PCRs {
		pcrs.Pcrs[uint32(i)] = value
	}
	return &goTPMTools{
		root: m.Root, issuer: m.Issuer,
		ek: p.Request.EKCertificate, akPublic: p.Request.AKPublic, nonce: nonce,
		attestation: &pb.Attestation{
			AkPub:    p.Request.AKPublic,
			Quotes:   []*tpmpb.Quote{{Quote: p.Login.Quote, RawSig: p.Login.Signature, Pcrs: pcrs}},
			EventLog: p.Login.EventLog,
		},
	}
}

func (g *goTPMTools) verify() error {
	certificate, err := x509.ParseCertificate(g.ek)
	if err != nil {
		return err
	}
	err = server.VerifyAKCert(certificate, []*x509.Certificate{g.root}, []*x509.Certificate{g.issuer})
	if err != nil {
		return err
	}
	ak, err := g.activate(certificate)
	if err != nil {
		return err
	}
	_, err = server.VerifyAttestation(g.attestation, server.VerifyOpts{
		Nonce: g.nonce, TrustedAKs: []crypto.PublicKey{ak}, AllowEFIAppBeforeCallingEvent: true,
	})
	return err
}

func (g *goTPMTools) activate(certificate *x509.Certificate) (crypto.PublicKey, error) {
	public, err := tpm2.DecodePublic(g.akPublic)
	if err != nil {
		return nil, err
	}
	name, err := public.Name()
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	if _, _, err := credactivation.Generate(name.Digest, certificate.PublicKey, 16, secret); err != nil {
		return nil, err
	}
	return public.Key()
}
