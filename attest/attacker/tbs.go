// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// TBSCertificate is RFC 5280 section 4.1 with nothing checked, for what package
// x509 does not sign: negative serial numbers, other versions, keys that are
// none.
type TBSCertificate struct {
	Version      int `asn1:"optional,explicit,default:0,tag:0"` // 2 is version 3
	SerialNumber *big.Int
	Signature    pkix.AlgorithmIdentifier
	Issuer       asn1.RawValue
	Validity     asn1.RawValue
	Subject      asn1.RawValue
	PublicKey    asn1.RawValue
	Extensions   []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

type signedCertificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// CertifyRaw issues an EK certificate (DER) after bend has had its way with every
// field but the signature, which is genuine.
func (v *Vendor) CertifyRaw(public crypto.PublicKey, bend func(*TBSCertificate)) ([]byte, error) {
	der, err := v.Certify(public)
	if err != nil {
		return nil, err
	}
	var outer signedCertificate
	var tbs TBSCertificate
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("take certificate apart: %w", err)
	}
	if _, err := asn1.Unmarshal(outer.TBS.FullBytes, &tbs); err != nil {
		return nil, fmt.Errorf("take certificate apart: %w", err)
	}
	bend(&tbs)
	raw, err := asn1.Marshal(tbs)
	if err != nil {
		return nil, fmt.Errorf("put certificate together: %w", err)
	}
	return v.sign(raw, outer.Algorithm)
}

func (v *Vendor) sign(tbs []byte, algorithm pkix.AlgorithmIdentifier) ([]byte, error) {
	digest, hash := sha256.Sum256(tbs), crypto.SHA256
	sum := digest[:]
	if _, ok := v.key.(*rsa.PrivateKey); !ok && len(v.Certificate.RawSubjectPublicKeyInfo) > 100 {
		hash = crypto.SHA384 // what package x509 chose for P-384
		h := hash.New()
		h.Write(tbs)
		sum = h.Sum(nil)
	}
	signature, err := v.key.Sign(rand.Reader, sum, hash)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return asn1.Marshal(signedCertificate{
		TBS:       asn1.RawValue{FullBytes: tbs},
		Algorithm: algorithm,
		Signature: asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}

// NegativeSerial is a quirk of some vendors' certificates.
func NegativeSerial(c *TBSCertificate) { c.SerialNumber = new(big.Int).Neg(c.SerialNumber) }
