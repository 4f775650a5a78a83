// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"crypto"
	"crypto/x509"
	"testing"

	"funlab.casa/omen/attest/attacker"
)

// Vendor is a TPM vendor of package attacker with P-256 keys, for tests of the
// verifier: what fails, fails the test.
type Vendor struct{ *attacker.Vendor }

// NewVendor makes a vendor with a self-signed root.
func NewVendor(t testing.TB) *Vendor {
	t.Helper()
	v, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	return &Vendor{v}
}

// Intermediate makes a certification authority below this one.
func (v *Vendor) Intermediate(t testing.TB) *Vendor {
	t.Helper()
	below, err := v.Vendor.Intermediate(attacker.P256)
	check(t, err)
	return &Vendor{below}
}

// Certify issues an EK certificate (DER) for a public key after bend, which may
// be nil, has had its way with the template.
func (v *Vendor) Certify(t testing.TB, public crypto.PublicKey, bend func(*x509.Certificate)) []byte {
	t.Helper()
	if bend == nil {
		bend = func(*x509.Certificate) {}
	}
	der, err := v.Vendor.Certify(public, bend)
	check(t, err)
	return der
}

// SelfSign issues an EK certificate (DER) by the endorsement key itself.
func SelfSign(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := attacker.SelfSign(key)
	check(t, err)
	return der
}

// EKTemplate is a certificate in the shape of the TCG EK Credential Profile.
func EKTemplate(t testing.TB, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template, err := attacker.EKTemplate(public)
	check(t, err)
	return template
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
