// SPDX-License-Identifier: Apache-2.0

package attacker

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
	"fmt"
	"math/big"
	"time"

	x509ext "github.com/google/go-attestation/x509"
)

// KeyKind is a kind of key for an endorsement key or a vendor.
type KeyKind string

// The kinds of key.
const (
	RSA2048 KeyKind = "rsa2048"
	P256    KeyKind = "p256"
	P384    KeyKind = "p384"
)

// Generate makes a key of this kind. Keys of RSA2048 take a tenth of a second,
// the others some microseconds.
func (k KeyKind) Generate() (crypto.Signer, error) {
	switch k {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return nil, fmt.Errorf("no kind of key is called %q", string(k))
	}
}

// Bend changes a certificate before it is signed.
type Bend func(*x509.Certificate)

// Vendor is a TPM vendor: a certification authority for endorsement keys. It may
// be used by many goroutines.
type Vendor struct {
	Certificate *x509.Certificate
	key         crypto.Signer
	above       *Vendor // nil for a root
}

// NewVendor makes a vendor with a self-signed root.
func NewVendor(kind KeyKind, bends ...Bend) (*Vendor, error) {
	return newVendor(kind, nil, bends)
}

// Intermediate makes a certification authority below this one.
func (v *Vendor) Intermediate(kind KeyKind, bends ...Bend) (*Vendor, error) {
	return newVendor(kind, v, bends)
}

// Impostor makes a root that has the name and key identifier of this one, and
// another key.
func (v *Vendor) Impostor() (*Vendor, error) {
	return NewVendor(P256, func(c *x509.Certificate) {
		c.RawSubject, c.SubjectKeyId = v.Certificate.RawSubject, v.Certificate.SubjectKeyId
	})
}

func newVendor(kind KeyKind, above *Vendor, bends []Bend) (*Vendor, error) {
	key, err := kind.Generate()
	if err != nil {
		return nil, err
	}
	return vendorWithKey(key, above, bends)
}

func vendorWithKey(key crypto.Signer, above *Vendor, bends []Bend) (*Vendor, error) {
	number, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          number,
		Subject:               pkix.Name{CommonName: "TPM vendor " + number.Text(16)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	for _, bend := range bends {
		bend(template)
	}
	issuer, signer := template, key
	if above != nil {
		issuer, signer = above.Certificate, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("make vendor: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return &Vendor{Certificate: certificate, key: key, above: above}, err
}

// IssuedBy is a vendor whose certificate is an endorsement key's: no authority,
// but whoever looks only at signatures would not notice.
func IssuedBy(certificate []byte, key crypto.Signer, above *Vendor) (*Vendor, error) {
	parsed, err := x509.ParseCertificate(certificate)
	return &Vendor{Certificate: parsed, key: key, above: above}, err
}

// PEM is the vendor's certificate as an operator pins it.
func (v *Vendor) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Certificate.Raw}))
}

// Chain is what a host sends beside its EK certificate: DER, the issuer first,
// the root left out.
func (v *Vendor) Chain() [][]byte {
	var chain [][]byte
	for ; v.above != nil; v = v.above {
		chain = append(chain, v.Certificate.Raw)
	}
	return chain
}

// Certify issues an EK certificate (DER) for any public key.
func (v *Vendor) Certify(public crypto.PublicKey, bends ...Bend) ([]byte, error) {
	template, err := EKTemplate(public)
	if err != nil {
		return nil, err
	}
	for _, bend := range bends {
		bend(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, v.Certificate, public, v.key)
	if err != nil {
		return nil, fmt.Errorf("certify EK: %w", err)
	}
	return der, nil
}

// SelfSign issues an EK certificate (DER) by the endorsement key itself.
func SelfSign(key crypto.Signer) ([]byte, error) {
	template, err := EKTemplate(key.Public())
	if err != nil {
		return nil, err
	}
	template.SubjectKeyId, template.AuthorityKeyId = []byte{1}, []byte{1}
	template.Subject = pkix.Name{CommonName: "self"}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("self-sign EK: %w", err)
	}
	return der, nil
}

// EKTemplate is a certificate in the shape of the TCG EK Credential Profile 2.6
// section 3.2: an empty subject, the TPM's name in a critical subjectAltName.
func EKTemplate(public crypto.PublicKey) (*x509.Certificate, error) {
	number, err := serial()
	if err != nil {
		return nil, err
	}
	usage := x509.KeyUsageKeyAgreement
	if _, ok := public.(*rsa.PublicKey); ok {
		usage = x509.KeyUsageKeyEncipherment
	}
	template := &x509.Certificate{
		SerialNumber:          number,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              usage,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
	}
	name, err := tpmName("id:00001014", "attacker", "id:00000001")
	template.ExtraExtensions = []pkix.Extension{name}
	return template, err
}

// Named gives an EK certificate another TPM manufacturer, model and version (TCG
// EK Credential Profile 2.6 section 3.1.2) in place of all its extensions.
func Named(manufacturer, model, version string) (Bend, error) {
	name, err := tpmName(manufacturer, model, version)
	return func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{name} }, err
}

func tpmName(manufacturer, model, version string) (pkix.Extension, error) {
	id := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 2, n} }
	return x509ext.MarshalSubjectAltName(&x509ext.SubjectAltName{DirectoryNames: []pkix.Name{{
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: id(1), Value: manufacturer}, {Type: id(2), Value: model}, {Type: id(3), Value: version},
		},
	}}}, true)
}

func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}
