// SPDX-License-Identifier: Apache-2.0

package provertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	x509ext "github.com/google/go-attestation/x509"
)

// Vendor is a TPM vendor: a root that certifies endorsement keys.
type Vendor struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewVendor makes a vendor with a self-signed root.
func NewVendor(t testing.TB) *Vendor {
	t.Helper()
	return newCA(t, nil)
}

// Intermediate makes a certification authority below this one.
func (v *Vendor) Intermediate(t testing.TB) *Vendor {
	t.Helper()
	return newCA(t, v)
}

func newCA(t testing.TB, parent *Vendor) *Vendor {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber:          serial(t),
		Subject:               pkix.Name{CommonName: "vendor " + serial(t).Text(16)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.Certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	check(t, err)
	certificate, err := x509.ParseCertificate(der)
	check(t, err)
	return &Vendor{Certificate: certificate, key: key}
}

// PEM is the vendor's certificate as an operator pins it.
func (v *Vendor) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Certificate.Raw}))
}

// Certify issues an EK certificate (DER) for a public key after bend, which may
// be nil, has had its way with the template.
func (v *Vendor) Certify(t testing.TB, public crypto.PublicKey, bend func(*x509.Certificate)) []byte {
	t.Helper()
	template := EKTemplate(t, public)
	if bend != nil {
		bend(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, v.Certificate, public, v.key)
	check(t, err)
	return der
}

// SelfSign issues an EK certificate (DER) by the endorsement key itself.
func SelfSign(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	template := EKTemplate(t, key.Public())
	template.SubjectKeyId = []byte{1}
	template.AuthorityKeyId = []byte{1}
	template.Subject = pkix.Name{CommonName: "self"}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	return der
}

// EKTemplate is a certificate in the shape of the TCG EK Credential Profile: an
// empty subject and the TPM's name in a critical subjectAltName.
func EKTemplate(t testing.TB, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	san, err := x509ext.MarshalSubjectAltName(&x509ext.SubjectAltName{DirectoryNames: []pkix.Name{{
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:00001014"},
			{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 2}, Value: "liar"},
			{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 3}, Value: "id:00000001"},
		},
	}}}, true)
	check(t, err)
	usage := x509.KeyUsageKeyAgreement
	if _, ok := public.(*rsa.PublicKey); ok {
		usage = x509.KeyUsageKeyEncipherment
	}
	return &x509.Certificate{
		SerialNumber:          serial(t),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              usage,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:       []pkix.Extension{san},
	}
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	check(t, err)
	return n.Add(n, big.NewInt(1))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
