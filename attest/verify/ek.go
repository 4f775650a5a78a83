// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// maxEKPublic bounds a DER SubjectPublicKeyInfo: RSA-4096 has 550 bytes.
const maxEKPublic = 1 << 10

// EK is an endorsement key and who vouches for it. All but TPMID, Class, Key and
// Public is of the certificate, and zero in one that [CheckEKPublic] returns.
//
// The strings were written by whoever made the certificate. They are bounded,
// valid UTF-8 and without control characters; who shows them escapes them all the
// same, and nobody decides by them.
type EK struct {
	TPMID       attest.TPMID
	Class       attest.EKClass    // of the root; of several chains, the weakest
	Certificate [sha256.Size]byte // SHA-256 of the DER certificate without trailing NV bytes
	Key         crypto.PublicKey  // *rsa.PublicKey or *ecdsa.PublicKey
	Public      *tpm2.TPMTPublic  // rebuilt from Key and the standard template

	// IssuerSerial is SHA-256 over the DER SubjectPublicKeyInfo of the key that signed
	// the certificate in the accepted chain and the content octets of the serial
	// number's DER INTEGER. It goes by the key, because another CA could take the name.
	IssuerSerial [sha256.Size]byte

	// Sent are, as SHA-256 of their DER, the intermediates of the accepted chain that
	// the host had to send: without one of them, the judgement is another.
	Sent [][sha256.Size]byte

	// NotBefore and NotAfter are when each certificate of the accepted chain is
	// valid: outside, the judgement is void.
	NotBefore, NotAfter time.Time

	Manufacturer string // registered in the TCG Vendor ID Registry: "STM"; as certified where it is no such id
	Model        string // "ST33HTPHAHD4"
	Firmware     string // hex digits of the certified version: "00010102"
	Subject      string // RFC 2253; often empty
}

// CheckEK judges an endorsement key by its certificate at the time now. The
// certificate may carry a TCG NV header and trailing NV bytes; intermediates are
// those that the host sent, each one DER certificate. In this order:
//
//   - certificates within bounds (size)
//   - the certificate parses, a negative serial number included (ek-certificate)
//   - it has the shape that the TCG EK Credential Profile 2.6 section 3.2 demands,
//     see shape (ek-certificate)
//   - its key is one of those we know a template for, and not of the generator of
//     CVE-2017-15361 (ek-weak)
//   - intermediates parse and have keys within bounds (ek-certificate)
//   - a chain of two to six certificates reaches a believed root, each valid at
//     now (ek-certificate)
func CheckEK(der []byte, intermediates [][]byte, roots *Roots, now time.Time) (*EK, error) {
	if len(der) > attest.MaxCertificate || len(intermediates) > attest.MaxIntermediates {
		return nil, attest.Refuse(attest.RuleSize, "EK certificate of %d bytes, %d intermediates", len(der), len(intermediates))
	}
	c, serial, err := parseCertificate(der)
	if err != nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "parse: %v", err)
	}
	name, err := shape(c)
	if err != nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "shape: %v", err)
	}
	ek, err := newEK(c.PublicKey)
	if err != nil {
		return nil, err
	}
	chain, err := roots.chain(c, intermediates, now)
	if err != nil {
		return nil, err
	}
	ek.Class, ek.NotBefore, ek.NotAfter = chain.class, chain.notBefore, chain.notAfter
	ek.Certificate = sha256.Sum256(c.Raw)
	ek.IssuerSerial = sha256.Sum256(append(bytes.Clone(chain.issuerKey), serial...))
	ek.Sent = chain.sent
	ek.Manufacturer, ek.Model, ek.Firmware = name.manufacturer, name.model, name.firmware
	ek.Subject = legible(c.Subject.String(), 256)
	return ek, nil
}

// CertificateHash is what [EK.Certificate] is of an EK certificate with what an NV
// index holds around it, without a judgement. It errs on bytes that hold no DER.
func CertificateHash(nv []byte) (sum [sha256.Size]byte, err error) {
	der, err := unpad(nv)
	if err != nil {
		return sum, err
	}
	return sha256.Sum256(der), nil
}

// CheckEKPublic takes an endorsement key that nobody certifies: a DER
// SubjectPublicKeyInfo (RFC 5280, 4.1), in the one encoding that this package
// would give it (size, syntax), under the same rules as a certified one
// (ek-weak). Its class is uncertified: whether the key is a TPM's is the word of
// whoever listed it.
func CheckEKPublic(spki []byte) (*EK, error) {
	if len(spki) > maxEKPublic {
		return nil, attest.Refuse(attest.RuleSize, "EK public key of %d bytes", len(spki))
	}
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, attest.Refuse(attest.RuleSyntax, "EK public key: %v", err)
	}
	ek, err := newEK(key)
	if err != nil {
		return nil, err
	}
	if same, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(same, spki) {
		return nil, attest.Refuse(attest.RuleSyntax, "EK public key in another encoding than DER's")
	}
	ek.Class = attest.ClassUncertified
	return ek, nil
}

// newEK is an EK that nobody vouches for yet, if its key is not weak.
func newEK(key crypto.PublicKey) (*EK, error) {
	public, err := attest.EKPublic(key)
	if err != nil {
		return nil, err
	}
	if k, ok := key.(*rsa.PublicKey); ok && roca(k.N) {
		return nil, attest.Refuse(attest.RuleEKWeak, "modulus of a flawed generator (ROCA)")
	}
	id, err := attest.NewTPMID(key)
	if err != nil {
		return nil, err
	}
	return &EK{TPMID: id, Key: key, Public: public}, nil
}
