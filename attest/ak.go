// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// AKHandle is where a host keeps its AK when the owner hierarchy lets it
// (TCG "Registry of Reserved TPM 2.0 Handles": 0x81010000–0x810100FF).
const AKHandle tpm2.TPMHandle = 0x81010020

// AKTemplate is the template of the attestation key: a restricted ECDSA P-256
// signing key, made as a primary of the endorsement hierarchy, so that the same
// TPM always gives the same key and quotes true reset counters.
//
// Its authPolicy is the hash of a phrase that no policy session can satisfy; the
// key is used by its empty authValue. The policy is there so that no other
// program's template has this key's Name.
func AKTemplate() tpm2.TPMTPublic {
	policy := sha256.Sum256([]byte("omen attestation key 1"))
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy[:]},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
			Scheme: tpm2.TPMTECCScheme{
				Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA,
					&tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
			KDF:     tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
			Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// AK is an attestation key of exactly our shape: all that differs from one TPM
// to the next is the point.
type AK struct {
	x, y [32]byte
	pub  *ecdsa.PublicKey
}

// ParseAK reads a TPMT_PUBLIC and returns the AK, or a *Refusal with rule
// ak-shape. It rebuilds the public area from [AKTemplate] and the claimed point
// and compares bytes, so that no other shape, type or trailing byte passes.
func ParseAK(public []byte) (*AK, error) {
	if len(public) != len(akPrefix)+2*34 {
		return nil, Refuse(RuleAKShape, "public area of %d bytes", len(public))
	}
	ak := new(AK)
	copy(ak.x[:], public[len(akPrefix)+2:])
	copy(ak.y[:], public[len(akPrefix)+36:])
	if !bytes.Equal(ak.Public(), public) {
		return nil, Refuse(RuleAKShape, "public area is not our template's")
	}
	return ak, ak.setPoint()
}

// AKFromPoint returns the AK with this point, from a record of our own.
func AKFromPoint(x, y [32]byte) (*AK, error) {
	ak := &AK{x: x, y: y}
	return ak, ak.setPoint()
}

func (ak *AK) setPoint() (err error) {
	point := append(append([]byte{4}, ak.x[:]...), ak.y[:]...)
	if ak.pub, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
		return Refuse(RuleAKShape, "point not on P-256")
	}
	return nil
}

// akPrefix is the TPMT_PUBLIC of the template up to the point.
var akPrefix = func() []byte {
	t := AKTemplate()
	b := tpm2.Marshal(&t) // our own template, no wire input
	return b[:len(b)-2*34]
}()

// Public is the TPMT_PUBLIC of the key (TPM 2.0 Part 2, 12.2.4).
func (ak *AK) Public() []byte {
	return appendPoint(akPrefix, ak.x, ak.y)
}

// appendPoint completes a TPMT_PUBLIC by its TPMS_ECC_POINT.
func appendPoint(prefix []byte, x, y [32]byte) []byte {
	b := append(make([]byte, 0, len(prefix)+2*34), prefix...)
	for _, c := range [][32]byte{x, y} {
		b = append(binary.BigEndian.AppendUint16(b, 32), c[:]...)
	}
	return b
}

// Point returns the two coordinates.
func (ak *AK) Point() (x, y [32]byte) { return ak.x, ak.y }

// Key is the key that verifies the AK's signatures.
func (ak *AK) Key() *ecdsa.PublicKey { return ak.pub }

// Name is nameAlg ‖ SHA-256(TPMT_PUBLIC) (TPM 2.0 Part 1, 16 "Names").
func (ak *AK) Name() []byte { return sha256Name(ak.Public()) }

// QualifiedName is the Name chained to the endorsement hierarchy, as it stands
// in TPMS_ATTEST.qualifiedSigner of a quote by a primary of that hierarchy.
func (ak *AK) QualifiedName() []byte {
	parent := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHEndorsement))
	return sha256Name(append(parent, ak.Name()...))
}

func sha256Name(b []byte) []byte {
	h := sha256.Sum256(b)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256)), h[:]...)
}
