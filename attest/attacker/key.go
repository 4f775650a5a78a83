// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"crypto"
	"crypto/x509"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Key is a key that a host has attested: in its TPM, or said to be.
type Key struct {
	SPKI []byte // DER SubjectPublicKeyInfo
	Name []byte // as the TPM has it; it need not be that of SPKI
	Key  crypto.Signer
}

// NewKey makes a key of our template, or of what bend makes of it.
func NewKey(bend func(*tpm2.TPMTPublic)) (*Key, error) {
	template := attest.KeyTemplate()
	if bend != nil {
		bend(&template)
	}
	ak, err := NewAKOf(template)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(ak.Key.Public())
	return &Key{SPKI: spki, Name: ak.Name(), Key: ak.Key}, err
}
