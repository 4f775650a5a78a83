// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEKCertificate  = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
)

// parseCertificate reads the one certificate that an NV index holds, and the
// content octets of its serial number.
func parseCertificate(nv []byte) (*x509.Certificate, []byte, error) {
	der, err := unpad(nv)
	if err != nil {
		return nil, nil, err
	}
	tbs, serial, err := serialNumber(der)
	if err != nil {
		return nil, nil, err
	}
	if len(serial) > 0 && serial[0] >= 0x80 {
		c, err := parseNegative(der, tbs, serial)
		return c, serial, err
	}
	c, err := x509.ParseCertificate(der)
	return c, serial, err
}

// unpad cuts off what stands around the certificate: the header of the TCG PC
// Client Specific Implementation Specification 7.4.5 (0x1001, type 0, two bytes of
// size) before it, filling after it.
func unpad(nv []byte) ([]byte, error) {
	if len(nv) > 5 && bytes.Equal(nv[:3], []byte{0x10, 0x01, 0x00}) {
		size := int(binary.BigEndian.Uint16(nv[3:]))
		if size > len(nv)-5 {
			return nil, errors.New("NV header tells of more bytes than there are")
		}
		nv = nv[5 : 5+size]
	}
	var certificate asn1.RawValue
	if _, err := asn1.Unmarshal(nv, &certificate); err != nil {
		return nil, err
	}
	return certificate.FullBytes, nil
}

// serialNumber finds TBSCertificate and the content octets of serialNumber in a
// certificate (RFC 5280, 4.1). Both are parts of der, not copies.
func serialNumber(der []byte) (tbs, serial []byte, err error) {
	var outer, inner, field asn1.RawValue
	if _, err = asn1.Unmarshal(der, &outer); err != nil {
		return nil, nil, err
	}
	if _, err = asn1.Unmarshal(outer.Bytes, &inner); err != nil {
		return nil, nil, err
	}
	rest, err := asn1.Unmarshal(inner.Bytes, &field)
	if err == nil && field.Class == asn1.ClassContextSpecific && field.Tag == 0 { // version
		_, err = asn1.Unmarshal(rest, &field)
	}
	if err != nil {
		return nil, nil, err
	}
	if field.Class != asn1.ClassUniversal || field.Tag != asn1.TagInteger {
		return nil, nil, errors.New("no serial number")
	}
	return inner.FullBytes, field.Bytes, nil
}

// parseNegative parses a certificate whose serial number is negative, as some
// TPM vendors' are: they took random bytes for it. Package crypto/x509 refuses
// those for the whole process or for none of it. So the first octet of the
// number is replaced in a copy, the copy is parsed, and the result is given back
// the bytes that the issuer signed: signature and hash are over the original.
func parseNegative(der, tbs, serial []byte) (*x509.Certificate, error) {
	if len(serial) > 1 && serial[0] == 0xff && serial[1] >= 0x80 {
		return nil, errors.New("serial number not in DER")
	}
	positive := bytes.Clone(der)
	_, patch, err := serialNumber(positive)
	if err != nil {
		return nil, err
	}
	patch[0] = 1
	c, err := x509.ParseCertificate(positive)
	if err != nil {
		return nil, err
	}
	c.Raw, c.RawTBSCertificate = der, tbs
	modulus := new(big.Int).Lsh(big.NewInt(1), uint(8*len(serial)))
	c.SerialNumber = modulus.Sub(new(big.Int).SetBytes(serial), modulus)
	return c, nil
}

// shape checks what the TCG EK Credential Profile 2.6 section 3.2 says of an EK
// certificate, as far as something hangs on it: version 3, an issuer, not a CA
// and says so, for exactly the use its key has, made for a TPM (extended key usage
// tcg-kp-EKCertificate) that it names. It takes subjectAltName off the list of
// critical extensions that nobody handled; any other stays there and refuses the
// chain. Not asked for: a positive serial number, critical marks, an authority
// key identifier; real vendors lack them, and nothing here relies on them.
func shape(c *x509.Certificate) (tpmName, error) {
	for _, rule := range []struct {
		broken bool
		what   string
	}{
		{c.Version != 3, "not version 3"},
		{len(c.RawIssuer) <= 2, "no issuer"},
		{!c.BasicConstraintsValid, "no basic constraints"},
		{c.IsCA, "is a CA"},
		{c.KeyUsage&keyUsage(c.PublicKeyAlgorithm) == 0, "key usage does not fit an EK of its type"},
		{c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0, "key usage of a CA"},
		{!slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKCertificate.Equal), "extended key usage tcg-kp-EKCertificate is missing"},
	} {
		if rule.broken {
			return tpmName{}, errors.New(rule.what)
		}
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			name, err := parseTPMName(e.Value)
			if err != nil {
				return tpmName{}, fmt.Errorf("subjectAltName: %w", err)
			}
			c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidSubjectAltName.Equal)
			return name, nil
		}
	}
	return tpmName{}, errors.New("no subjectAltName")
}

// keyUsage is the one bit without which a key is not an EK's.
func keyUsage(algorithm x509.PublicKeyAlgorithm) x509.KeyUsage {
	switch algorithm {
	case x509.RSA:
		return x509.KeyUsageKeyEncipherment
	case x509.ECDSA:
		return x509.KeyUsageKeyAgreement
	default:
		return 0
	}
}
