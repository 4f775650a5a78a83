// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// AK is an attestation key: what is said of it, and the key that signs. They need
// not fit.
type AK struct {
	Public []byte // TPMT_PUBLIC, as it is sent and as the Name is computed from
	Key    crypto.Signer
}

// NewAK makes an attestation key of our template.
func NewAK() (*AK, error) { return NewAKOf(attest.AKTemplate()) }

// NewAKOf makes an attestation key of any template: RSA-2048, or ECC on P-256,
// P-384 or P-521.
func NewAKOf(template tpm2.TPMTPublic) (*AK, error) {
	key, err := generateFor(template)
	if err != nil {
		return nil, err
	}
	if template.Unique, err = unique(key.Public()); err != nil {
		return nil, err
	}
	return &AK{Public: tpm2.Marshal(&template), Key: key}, nil
}

func generateFor(template tpm2.TPMTPublic) (crypto.Signer, error) {
	if template.Type == tpm2.TPMAlgRSA {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	detail, err := template.Parameters.ECCDetail()
	if err != nil {
		return nil, fmt.Errorf("template is neither RSA nor ECC: %w", err)
	}
	switch detail.CurveID {
	case tpm2.TPMECCNistP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case tpm2.TPMECCNistP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	}
}

func unique(public crypto.PublicKey) (tpm2.TPMUPublicID, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.Bytes()}), nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return tpm2.TPMUPublicID{}, err
		}
		half := len(point) / 2
		return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+half]},
			Y: tpm2.TPM2BECCParameter{Buffer: point[1+half:]},
		}), nil
	default:
		return tpm2.TPMUPublicID{}, fmt.Errorf("no TPM has a key of type %T", public)
	}
}

// Name is nameAlg ‖ SHA-256(TPMT_PUBLIC) (TPM 2.0 Part 1, 16).
func (ak *AK) Name() []byte { return nameOf(ak.Public) }

// QualifiedName is the Name chained to a hierarchy, whose primary the AK then is.
func (ak *AK) QualifiedName(hierarchy tpm2.TPMHandle) []byte {
	return nameOf(append(binary.BigEndian.AppendUint32(nil, uint32(hierarchy)), ak.Name()...))
}

func nameOf(b []byte) []byte {
	h := sha256.Sum256(b)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256)), h[:]...)
}

// Sign is the TPMT_SIGNATURE over raw, with SHA-256 (TPM 2.0 Part 2, 11.3.4).
func (ak *AK) Sign(raw []byte) ([]byte, error) { return ak.SignBy(raw, tpm2.TPMAlgSHA256) }

// SignBy is Sign with another hash.
func (ak *AK) SignBy(raw []byte, hash tpm2.TPMAlgID) ([]byte, error) {
	h, err := hash.Hash()
	if err != nil {
		return nil, err
	}
	w := h.New()
	w.Write(raw)
	digest := w.Sum(nil)
	switch k := ak.Key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		return signature(tpm2.TPMAlgECDSA, hash, r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))), nil
	default:
		signed, err := k.Sign(rand.Reader, digest, h)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		return signature(tpm2.TPMAlgRSASSA, hash, signed), nil
	}
}

func signature(scheme, hash tpm2.TPMAlgID, parts ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(scheme))
	b = binary.BigEndian.AppendUint16(b, uint16(hash))
	for _, part := range parts {
		b = sized(b, part)
	}
	return b
}

// sized appends part as a TPM2B.
func sized(b, part []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(part))), part...)
}
