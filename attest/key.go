// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"

	"github.com/google/go-tpm/tpm2"
)

// KeyTemplate is the template of a key that lives in the TPM and serves TLS:
// P-256, signing only, usable without a password and never outside this TPM.
func KeyTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
			Scheme:    tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
			CurveID:   tpm2.TPMECCNistP256,
			KDF:       tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
			Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// keyPrefix is the TPMT_PUBLIC of [KeyTemplate] up to the point.
var keyPrefix = func() []byte {
	t := KeyTemplate()
	b := tpm2.Marshal(&t) // our own template, no wire input
	return b[:len(b)-2*34]
}()

// KeyName is the Name (TPM 2.0 Part 1, 16) that a key of [KeyTemplate] with this
// DER SubjectPublicKeyInfo has. A key that cannot be one is refused with rule
// key, as is another encoding of one.
func KeyName(spki []byte) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, Refuse(RuleKey, "certified key: %v", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, Refuse(RuleKey, "certified key is not on P-256")
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, spki) {
		return nil, Refuse(RuleKey, "certified key in an unusual encoding")
	}
	point, err := key.Bytes()
	if err != nil {
		return nil, Refuse(RuleKey, "certified key: %v", err)
	}
	return sha256Name(appendPoint(keyPrefix, [32]byte(point[1:33]), [32]byte(point[33:]))), nil
}
