// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Liar is a TPM in software, with an RSA-2048 endorsement key.
type Liar struct {
	EK            *rsa.PrivateKey
	EKCertificate []byte
	AK            *attest.AK
	ak            *ecdsa.PrivateKey
}

// NewLiar makes a TPM that v certifies.
func NewLiar(t testing.TB, v *Vendor) *Liar {
	t.Helper()
	ek, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	l := &Liar{EK: ek, EKCertificate: v.Certify(t, ek.Public(), nil)}
	l.NewAK(t)
	return l
}

// NewAK gives the TPM another attestation key, as no TPM does by itself.
func (l *Liar) NewAK(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	point, err := key.PublicKey.Bytes()
	check(t, err)
	l.AK, err = attest.AKFromPoint([32]byte(point[1:33]), [32]byte(point[33:]))
	check(t, err)
	l.ak = key
}

// StealAK makes l sign with the attestation key of another TPM.
func (l *Liar) StealAK(from *Liar) { l.AK, l.ak = from.AK, from.ak }

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
	if m.EventLogHash == nil {
		m.EventLogHash = make([]byte, sha256.Size)
	}
	secret := c.Nonce
	if c.Kind == attest.KindActivate {
		secret = l.Unwrap(t, c.Credential)
	}
	binding := attest.QuoteBinding(attest.Binding{
		Kind: c.Kind, Secret: secret, Audience: m.Audience, Keys: m.Keys, EventLogHash: [32]byte(m.EventLogHash),
	})
	a := HonestAttestation(l.AK, binding[:], c.PCRSelection)
	if bend != nil {
		bend(&a)
	}
	m.Challenge, m.Quote = c.Challenge, a.Bytes()
	m.Signature = l.Sign(t, m.Quote)
	return m
}

// Unwrap is TPM2_ActivateCredential; a credential for another EK or AK gives 32
// zero bytes.
func (l *Liar) Unwrap(t testing.TB, c *attest.Credential) []byte {
	t.Helper()
	zero := make([]byte, 32)
	seed, err := rsa.DecryptOAEP(sha256.New(), nil, l.EK, c.Secret, []byte("IDENTITY\x00"))
	if err != nil || len(c.Blob) < 2+sha256.Size {
		return zero
	}
	key := tpm2.KDFa(crypto.SHA256, seed, "STORAGE", l.AK.Name(), nil, 128)
	block, err := aes.NewCipher(key)
	check(t, err)
	identity := append([]byte{}, c.Blob[2+sha256.Size:]...)
	//nolint:staticcheck // CFB is what the TPM specification asks for.
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(identity, identity)
	if len(identity) != 2+32 || binary.BigEndian.Uint16(identity) != 32 {
		return zero
	}
	return identity[2:]
}

// Sign is the TPMT_SIGNATURE over raw by the attestation key.
func (l *Liar) Sign(t testing.TB, raw []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(raw)
	r, s, err := ecdsa.Sign(rand.Reader, l.ak, digest[:])
	check(t, err)
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgECDSA))
	b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgSHA256))
	for _, n := range [][]byte{r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))} {
		b = append(binary.BigEndian.AppendUint16(b, 32), n...)
	}
	return b
}

// Attestation is a TPMS_ATTEST field by field (TPM 2.0 Part 2, 10.12.12).
type Attestation struct {
	Magic      uint32
	Type       uint16
	Signer     []byte
	ExtraData  []byte
	Clock      uint64
	Reset      uint32
	Restart    uint32
	Safe       byte
	Firmware   uint64
	Selections []PCRs
	Digest     []byte
	Trailing   []byte
}

// PCRs is one TPMS_PCR_SELECTION.
type PCRs struct {
	Bank   uint16
	Bitmap []byte
}

// HonestAttestation is what a TPM that was reset three times would sign over
// PCRs that are all zero.
func HonestAttestation(ak *attest.AK, extraData []byte, s attest.Selection) Attestation {
	bitmap := s.Bitmap()
	digest := sha256.Sum256(make([]byte, len(s.PCRs)*s.Hash().Size()))
	return Attestation{
		Magic: uint32(tpm2.TPMGeneratedValue), Type: uint16(tpm2.TPMSTAttestQuote),
		Signer: ak.QualifiedName(), ExtraData: extraData,
		Clock: 1000, Reset: 3, Restart: 0, Safe: 1, Firmware: 0x2019102300163636,
		Selections: []PCRs{{Bank: uint16(s.Algorithm()), Bitmap: bitmap[:]}},
		Digest:     digest[:],
	}
}

// Bytes is the attestation as a TPM would send it.
func (a Attestation) Bytes() []byte {
	be := binary.BigEndian
	sized := func(b, part []byte) []byte { return append(be.AppendUint16(b, uint16(len(part))), part...) }
	b := be.AppendUint16(be.AppendUint32(nil, a.Magic), a.Type)
	b = sized(sized(b, a.Signer), a.ExtraData)
	b = be.AppendUint32(be.AppendUint32(be.AppendUint64(b, a.Clock), a.Reset), a.Restart)
	b = be.AppendUint64(append(b, a.Safe), a.Firmware)
	b = be.AppendUint32(b, uint32(len(a.Selections)))
	for _, s := range a.Selections {
		b = append(append(be.AppendUint16(b, s.Bank), byte(len(s.Bitmap))), s.Bitmap...)
	}
	return append(sized(b, a.Digest), a.Trailing...)
}
