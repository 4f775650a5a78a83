// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"funlab.casa/omen/attest"
)

// Device is a host with a real TPM. Each answer makes its keys anew and leaves
// nothing loaded.
type Device struct {
	EKCertificate []byte
	AK            *attest.AK
	tpm           transport.TPM
	ek            endorsement
	hierarchy     tpm2.TPMHandle // of the AK
}

// endorsement is where an endorsement key is and how to satisfy its policy.
type endorsement struct {
	index  tpm2.TPMHandle // of the certificate in NV
	handle tpm2.TPMHandle // persistent
	hash   tpm2.TPMAlgID
	either []tpm2.TPM2BDigest // branches of the PolicyOR, if there is one
}

var (
	rsaEndorsement  = endorsement{index: 0x01c00002, handle: 0x81010001, hash: tpm2.TPMAlgSHA256}
	p384Endorsement = endorsement{
		index: 0x01c00016, handle: 0x81010016, hash: tpm2.TPMAlgSHA384,
		either: []tpm2.TPM2BDigest{{Buffer: attest.EKPolicyA384}, {Buffer: attest.EKPolicyC384}},
	}
)

// RSA opens a host by its RSA-2048 endorsement key.
func RSA(t testing.TB, tpm transport.TPM) *Device {
	t.Helper()
	return open(t, tpm, rsaEndorsement)
}

// P384 opens a host by its P-384 endorsement key.
func P384(t testing.TB, tpm transport.TPM) *Device {
	t.Helper()
	return open(t, tpm, p384Endorsement)
}

// p256Handle is where the TCG's handle registry has a second endorsement key.
const p256Handle tpm2.TPMHandle = 0x8101000a

// P256 gives a TPM a P-256 endorsement key and has issue certify it: swtpm's
// manufacture makes neither.
func P256(t testing.TB, tpm transport.TPM, issue func(*x509.Certificate, crypto.PublicKey) ([]byte, error)) *Device {
	t.Helper()
	created, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement,
		InPublic:      tpm2.New2B(tpm2.ECCEKTemplate),
	}.Execute(tpm)
	check(t, err)
	_, err = tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     tpm2.NamedHandle{Handle: created.ObjectHandle, Name: created.Name},
		PersistentHandle: p256Handle,
	}.Execute(tpm)
	check(t, err)
	_, err = tpm2.FlushContext{FlushHandle: created.ObjectHandle}.Execute(tpm)
	check(t, err)
	area, err := created.OutPublic.Contents()
	check(t, err)
	public, err := tpm2.Pub(*area)
	check(t, err)
	certificate, err := issue(EKTemplate(t, public), public)
	check(t, err)
	return openCertified(t, tpm, endorsement{handle: p256Handle, hash: tpm2.TPMAlgSHA256}, certificate)
}

func open(t testing.TB, tpm transport.TPM, ek endorsement) *Device {
	t.Helper()
	return openCertified(t, tpm, ek, readNV(t, tpm, ek.index))
}

func openCertified(t testing.TB, tpm transport.TPM, ek endorsement, certificate []byte) *Device {
	t.Helper()
	return openAK(t, &Device{tpm: tpm, ek: ek, EKCertificate: certificate, hierarchy: tpm2.TPMRHEndorsement})
}

// InHierarchy opens a host whose AK is a primary of another hierarchy than the
// protocol's; it can answer challenges of kind known only.
func InHierarchy(t testing.TB, tpm transport.TPM, hierarchy tpm2.TPMHandle) *Device {
	t.Helper()
	return openAK(t, &Device{tpm: tpm, hierarchy: hierarchy})
}

func openAK(t testing.TB, d *Device) *Device {
	t.Helper()
	d.withAK(t, func(_ tpm2.NamedHandle, public []byte) {
		var err error
		d.AK, err = attest.ParseAK(public)
		check(t, err)
	})
	return d
}

// Request is the message that asks for a challenge.
func (d *Device) Request(role string) attest.ChallengeRequest {
	return attest.ChallengeRequest{V: 1, Role: role, EKCertificate: d.EKCertificate, AKPublic: d.AK.Public()}
}

// Answer proves the TPM for a challenge, over keys that may be nil.
func (d *Device) Answer(t testing.TB, c attest.Challenge, role, audience string, keys [][]byte) attest.LoginRequest {
	t.Helper()
	m := attest.LoginRequest{
		V: 1, Role: role, Challenge: c.Challenge, Audience: audience,
		EventLogHash: make([]byte, sha256.Size), Keys: keys,
	}
	d.withAK(t, func(ak tpm2.NamedHandle, _ []byte) {
		secret := c.Nonce
		if c.Kind == attest.KindActivate {
			secret = d.activate(t, ak, c.Credential)
		}
		binding := attest.QuoteBinding(attest.Binding{Kind: c.Kind, Secret: secret, Audience: audience, Keys: keys})
		m.Quote, m.Signature = quote(t, d.tpm, ak, binding[:], c.PCRSelection)
	})
	return m
}

// Unwrap is TPM2_ActivateCredential.
func (d *Device) Unwrap(t testing.TB, c *attest.Credential) (secret []byte) {
	t.Helper()
	d.withAK(t, func(ak tpm2.NamedHandle, _ []byte) { secret = d.activate(t, ak, c) })
	return secret
}

// Certify is TPM2_Certify of the AK by itself: signed like a quote, but none.
func (d *Device) Certify(t testing.TB, qualifyingData []byte) (raw, signature []byte) {
	t.Helper()
	d.withAK(t, func(ak tpm2.NamedHandle, _ []byte) {
		signer := tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)}
		answer, err := tpm2.Certify{
			ObjectHandle:   signer,
			SignHandle:     signer,
			QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(d.tpm)
		check(t, err)
		raw, signature = answer.CertifyInfo.Bytes(), tpm2.Marshal(answer.Signature)
	})
	return raw, signature
}

func (d *Device) withAK(t testing.TB, do func(ak tpm2.NamedHandle, public []byte)) {
	t.Helper()
	created, err := tpm2.CreatePrimary{
		PrimaryHandle: d.hierarchy,
		InPublic:      tpm2.New2B(attest.AKTemplate()),
	}.Execute(d.tpm)
	check(t, err)
	defer func() {
		_, err := tpm2.FlushContext{FlushHandle: created.ObjectHandle}.Execute(d.tpm)
		check(t, err)
	}()
	do(tpm2.NamedHandle{Handle: created.ObjectHandle, Name: created.Name}, created.OutPublic.Bytes())
}

func (d *Device) activate(t testing.TB, ak tpm2.NamedHandle, c *attest.Credential) []byte {
	t.Helper()
	ek, err := tpm2.ReadPublic{ObjectHandle: d.ek.handle}.Execute(d.tpm)
	check(t, err)
	answer, err := tpm2.ActivateCredential{
		ActivateHandle: ak,
		KeyHandle: tpm2.AuthHandle{
			Handle: d.ek.handle, Name: ek.Name, Auth: tpm2.Policy(d.ek.hash, 16, d.ek.policy),
		},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(d.tpm)
	check(t, err)
	return answer.CertInfo.Buffer
}

func (e endorsement) policy(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce,
	}.Execute(tpm)
	if err != nil || e.either == nil {
		return err
	}
	_, err = tpm2.PolicyOr{PolicySession: session, PHashList: tpm2.TPMLDigest{Digests: e.either}}.Execute(tpm)
	return err
}

func quote(t testing.TB, tpm transport.TPM, ak tpm2.NamedHandle, qualifyingData []byte, s attest.Selection) (raw, signature []byte) {
	t.Helper()
	answer, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      s.TPM(),
	}.Execute(tpm)
	check(t, err)
	return answer.Quoted.Bytes(), tpm2.Marshal(answer.Signature)
}

func readNV(t testing.TB, tpm transport.TPM, index tpm2.TPMHandle) []byte {
	t.Helper()
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	check(t, err)
	area, err := public.NVPublic.Contents()
	check(t, err)
	var content []byte
	for len(content) < int(area.DataSize) {
		chunk, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(512, area.DataSize-uint16(len(content))),
			Offset:     uint16(len(content)),
		}.Execute(tpm)
		check(t, err)
		content = append(content, chunk.Data.Buffer...)
	}
	return content
}
