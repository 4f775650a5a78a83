// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"funlab.casa/omen/attest/verify/provertest"
)

// authority is a certification authority that signs anything.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, curve elliptic.Curve) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	check(t, err)
	a := &authority{key: key}
	a.certificate = a.vouch(t, a.template(t), key.Public())
	return a
}

// below is an authority that a vouches for.
func (a *authority) below(t testing.TB, bend func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	sub := &authority{key: key}
	template := sub.template(t)
	if bend != nil {
		bend(template)
	}
	sub.certificate = a.vouch(t, template, key.Public())
	return sub
}

// cross is another certificate of b's name and key, by a.
func (a *authority) cross(t testing.TB, b *authority, bend func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := a.template(t)
	template.Subject, template.SubjectKeyId = b.certificate.Subject, b.certificate.SubjectKeyId
	if bend != nil {
		bend(template)
	}
	return a.vouch(t, template, b.key.Public())
}

func (a *authority) template(t testing.TB) *x509.Certificate {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	check(t, err)
	return &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: "authority " + n.Text(16)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func (a *authority) vouch(t testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	issuer := a.certificate
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, a.key)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return c
}

// certify makes an EK certificate; bend may be nil.
func (a *authority) certify(t testing.TB, public crypto.PublicKey, bend func(*x509.Certificate)) []byte {
	t.Helper()
	template := provertest.EKTemplate(t, public)
	if bend != nil {
		bend(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	check(t, err)
	return der
}

// Fields of a TBSCertificate (RFC 5280, 4.1).
const (
	fieldVersion = iota
	fieldSerial
	_
	fieldIssuer
	_
	_
	fieldPublicKey
	fieldExtensions
)

// again signs a certificate anew after bend has changed the fields of its
// TBSCertificate: for certificates that no library makes.
func (a *authority) again(t testing.TB, der []byte, bend func(fields []asn1.RawValue) []asn1.RawValue) []byte {
	t.Helper()
	var outer struct {
		TBS       []asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(der, &outer)
	check(t, err)
	tbs, err := asn1.Marshal(bend(outer.TBS))
	check(t, err)
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	check(t, err)
	der, err = asn1.Marshal([]asn1.RawValue{
		{FullBytes: tbs}, outer.Algorithm, {Tag: asn1.TagBitString, Bytes: append([]byte{0}, signature...)},
	})
	check(t, err)
	return der
}

// withSerial gives a certificate these content octets for its serial number.
func (a *authority) withSerial(t testing.TB, der []byte, octets ...byte) []byte {
	t.Helper()
	return a.again(t, der, func(fields []asn1.RawValue) []asn1.RawValue {
		fields[fieldSerial] = asn1.RawValue{Tag: asn1.TagInteger, Bytes: octets}
		return fields
	})
}

func toPEM(list ...*x509.Certificate) (bundle []byte) {
	for _, c := range list {
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return bundle
}

// A name in subjectAltName, as vendors write it and as they do not.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value any
}

var (
	tpmMaker   = attribute{asn1.ObjectIdentifier{2, 23, 133, 2, 1}, "id:53544D20"}
	tpmModel   = attribute{asn1.ObjectIdentifier{2, 23, 133, 2, 2}, "ST33HTPHAHD4"}
	tpmVersion = attribute{asn1.ObjectIdentifier{2, 23, 133, 2, 3}, "id:00010102"}
)

// directoryName is a GeneralName with one attribute in each RDN.
func directoryName(t testing.TB, attributes ...attribute) asn1.RawValue {
	t.Helper()
	var rdns []asn1.RawValue
	for _, a := range attributes {
		der, err := asn1.Marshal(a)
		check(t, err)
		rdns = append(rdns, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: der})
	}
	der, err := asn1.Marshal(rdns)
	check(t, err)
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: der}
}

func subjectAltName(t testing.TB, critical bool, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(names)
	check(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: der}
}
