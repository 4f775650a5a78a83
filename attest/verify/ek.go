// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"time"

	ekattest "github.com/google/go-attestation/attest"
	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// maxChain bounds the certificates of an EK's chain: the EK's own, four
// intermediate ones and the root.
const maxChain = 6

// EK is an endorsement key that a believed vendor certified.
type EK struct {
	TPMID       attest.TPMID
	Certificate [sha256.Size]byte // SHA-256 of the DER certificate without trailing NV bytes
	Key         crypto.PublicKey  // as certified: *rsa.PublicKey or *ecdsa.PublicKey
	Public      *tpm2.TPMTPublic  // rebuilt from Key and the standard template
}

// CheckEK judges an endorsement key by its certificate at the time now. The
// certificate may carry a TCG NV header and trailing NV bytes; intermediates are
// those that the host sent, each one DER certificate. In this order:
//
//   - certificates within bounds (size)
//   - the certificate parses (ek-certificate) and has the shape that the TCG EK
//     Credential Profile 2.6 section 3.2 demands: version 3, positive serial
//     number, not a CA, the TPM's name in subjectAltName, key usage of its key
//     type, and the extended key usage tcg-kp-EKCertificate (ek-certificate)
//   - its key is one of those we know a template for, and not of the generator of
//     CVE-2017-15361 (ek-weak)
//   - intermediates parse and have keys within bounds (ek-certificate)
//   - a chain of at most six certificates reaches a believed root, each valid at
//     now (ek-certificate)
func CheckEK(der []byte, intermediates [][]byte, roots *Roots, now time.Time) (*EK, error) {
	if len(der) > attest.MaxCertificate || len(intermediates) > attest.MaxIntermediates {
		return nil, attest.Refuse(attest.RuleSize, "EK certificate of %d bytes, %d intermediates", len(der), len(intermediates))
	}
	certificate, err := parseEKCertificate(der)
	if err != nil {
		return nil, err
	}
	ek := &EK{Certificate: sha256.Sum256(certificate.Raw), Key: certificate.PublicKey}
	if k, ok := ek.Key.(*rsa.PublicKey); ok && roca(k.N) {
		return nil, attest.Refuse(attest.RuleEKWeak, "modulus of a flawed generator (ROCA)")
	}
	if ek.Public, err = attest.EKPublic(ek.Key); err != nil {
		return nil, err
	}
	if ek.TPMID, err = attest.NewTPMID(ek.Key); err != nil {
		return nil, err
	}
	if err := checkChain(certificate, intermediates, roots, now); err != nil {
		return nil, err
	}
	return ek, nil
}

func parseEKCertificate(der []byte) (*x509.Certificate, error) {
	parsed, err := ekattest.ParseEKCertificate(der)
	if err != nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "parse: %v", err)
	}
	// Takes the subjectAltName off the list of unhandled critical extensions.
	ek, err := ekx509.ToEKCertificate(parsed)
	if err != nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "shape: %v", err)
	}
	if !ek.HasEkcExtendedKeyUsage {
		return nil, attest.Refuse(attest.RuleEKCertificate, "extended key usage tcg-kp-EKCertificate is missing")
	}
	return ek.Certificate, nil
}

func checkChain(ek *x509.Certificate, sent [][]byte, roots *Roots, now time.Time) error {
	if roots == nil || roots.roots == nil {
		return attest.Refuse(attest.RuleEKCertificate, "no roots are configured")
	}
	pool, err := withSent(roots.intermediates, sent)
	if err != nil {
		return err
	}
	chains, err := ek.Verify(x509.VerifyOptions{
		Roots:         roots.roots,
		Intermediates: pool,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return attest.Refuse(attest.RuleEKCertificate, "chain: %v", err)
	}
	for _, chain := range chains {
		// A chain of one is an EK certificate pinned as its own root: no vendor
		// vouches for it.
		if len(chain) > 1 && len(chain) <= maxChain {
			return nil
		}
	}
	return attest.Refuse(attest.RuleEKCertificate, "no chain of two to %d certificates", maxChain)
}

func withSent(configured *x509.CertPool, sent [][]byte) (*x509.CertPool, error) {
	if len(sent) == 0 {
		return configured, nil
	}
	pool := x509.NewCertPool()
	if configured != nil {
		pool = configured.Clone()
	}
	for i, der := range sent {
		if len(der) > attest.MaxCertificate {
			return nil, attest.Refuse(attest.RuleSize, "intermediate %d of %d bytes", i, len(der))
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, attest.Refuse(attest.RuleEKCertificate, "intermediate %d: %v", i, err)
		}
		if !boundedKey(c.PublicKey) {
			return nil, attest.Refuse(attest.RuleEKCertificate, "intermediate %d has a key out of bounds", i)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// boundedKey keeps the cost of a signature check, and what it proves, bounded.
func boundedKey(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 4096
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	default:
		return false
	}
}
