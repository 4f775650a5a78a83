// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"

	"github.com/google/go-tpm/tpm2"
)

// TPMID names a TPM: "sha256-" and the hex SHA-256 of the DER
// SubjectPublicKeyInfo of its endorsement key.
type TPMID string

var tpmID = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// Check says whether id has the form of a TPM ID.
func (id TPMID) Check() error {
	if !tpmID.MatchString(string(id)) {
		return Refuse(RuleSyntax, "a TPM ID is sha256- and 64 lower-case hex digits")
	}
	return nil
}

// NewTPMID computes the TPM ID of an endorsement key. It refuses what
// [EKPublic] refuses.
func NewTPMID(ek crypto.PublicKey) (TPMID, error) {
	if _, err := EKPublic(ek); err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return "", Refuse(RuleEKWeak, "%v", err)
	}
	h := sha256.Sum256(spki)
	return TPMID("sha256-" + hex.EncodeToString(h[:])), nil
}

// Digests of the endorsement key's authorisation policy under SHA-384
// (TCG EK Credential Profile 2.5, annex B.6).
var (
	// EKPolicyA384 is TPM2_PolicySecret(TPM_RH_ENDORSEMENT).
	EKPolicyA384 = []byte("\x8b\xbf\x22\x66\x53\x7c\x17\x1c\xb5\x6e\x40\x3c\x4d\xc1\xd4\xb6" +
		"\x4f\x43\x26\x11\xdc\x38\x6e\x6f\x53\x20\x50\xc3\x27\x8c\x93\x0e" +
		"\x14\x3e\x8b\xb1\x13\x38\x24\xcc\xb4\x31\x05\x38\x71\xc6\xdb\x53")
	// EKPolicyC384 is TPM2_PolicyAuthorizeNV over the vendor's index.
	EKPolicyC384 = []byte("\xd6\x03\x2c\xe6\x1f\x2f\xb3\xc2\x40\xeb\x3c\xf6\xa3\x32\x37\xef" +
		"\x2b\x6a\x16\xf4\x29\x3c\x22\xb4\x55\xe2\x61\xcf\xfd\x21\x7a\xd5" +
		"\xb4\x94\x7c\x2d\x73\xe6\x30\x05\xee\xd2\xdc\x2b\x35\x93\xd1\x65")
	// ekPolicyB384 is TPM2_PolicyOR of the two.
	ekPolicyB384 = []byte("\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a" +
		"\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca" +
		"\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12")
)

// EKPublic builds the public area of an endorsement key from the certified key
// and the standard template (TCG EK Credential Profile 2.5, annex B: L-1
// RSA-2048, L-2 P-256, H-3 P-384). Both sides build it; neither sends it. Other
// keys are refused with rule ek-weak.
func EKPublic(key crypto.PublicKey) (*tpm2.TPMTPublic, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsaEK(k)
	case *ecdsa.PublicKey:
		return eccEK(k)
	default:
		return nil, Refuse(RuleEKWeak, "EK of type %T", key)
	}
}

func rsaEK(k *rsa.PublicKey) (*tpm2.TPMTPublic, error) {
	if k.N == nil || k.N.BitLen() != 2048 || k.E != 65537 {
		return nil, Refuse(RuleEKWeak, "RSA EK other than 2048 bits with exponent 65537")
	}
	public := tpm2.RSAEKTemplate
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA,
		&tpm2.TPM2BPublicKeyRSA{Buffer: k.N.FillBytes(make([]byte, 256))})
	return &public, nil
}

func eccEK(k *ecdsa.PublicKey) (*tpm2.TPMTPublic, error) {
	var public tpm2.TPMTPublic
	switch k.Curve {
	case elliptic.P256():
		public = tpm2.ECCEKTemplate
	case elliptic.P384():
		public = eccEK384Template()
	default:
		return nil, Refuse(RuleEKWeak, "EK on another curve than P-256 and P-384")
	}
	point, err := k.Bytes() // refuses a point that is not on the curve
	if err != nil {
		return nil, Refuse(RuleEKWeak, "EK point not on its curve")
	}
	half := len(point) / 2
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+half]},
		Y: tpm2.TPM2BECCParameter{Buffer: point[1+half:]},
	})
	return &public, nil
}

// eccEK384Template is template H-3, which go-tpm does not have.
func eccEK384Template() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: ekPolicyB384},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{
				Algorithm: tpm2.TPMAlgAES,
				KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
				Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
			},
			CurveID: tpm2.TPMECCNistP384,
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
			KDF:     tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		}),
	}
}
