// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"time"

	"funlab.casa/omen/attest"
)

// maxChain bounds the certificates of an EK's chain: the EK's own, four
// intermediate ones and the root.
const maxChain = 6

// chain is what vouches for an EK.
type chain struct {
	class               attest.EKClass
	notBefore, notAfter time.Time
	issuerKey           []byte              // DER SubjectPublicKeyInfo above the EK certificate
	sent                [][sha256.Size]byte // intermediates of it that are not configured
}

// chain finds the chain to believe from an EK certificate to a root, with the
// help of the intermediates that the host sent. Of several it takes the one to
// the root of the weakest class, and among equals the one that lasts longest.
// Unless the host sent what is not configured, the signatures above the issuer of
// the EK certificate need no check each time, see keptChains.
func (r *Roots) chain(ek *x509.Certificate, sent [][]byte, now time.Time) (*chain, error) {
	if r == nil || r.roots == nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "no roots are configured")
	}
	pool, err := r.withSent(sent)
	if err != nil {
		return nil, err
	}
	if pool == r.intermediates {
		if best := r.weakest(r.keptChains(ek, now)); best != nil {
			return best, nil
		}
	}
	found, err := ek.Verify(r.options(pool, now))
	if err != nil {
		return nil, attest.Refuse(attest.RuleEKCertificate, "chain: %v", err)
	}
	if best := r.weakest(found); best != nil {
		return best, nil
	}
	return nil, attest.Refuse(attest.RuleEKCertificate, "no chain of two to %d certificates", maxChain)
}

func (r *Roots) options(intermediates *x509.CertPool, now time.Time) x509.VerifyOptions {
	return x509.VerifyOptions{
		Roots:         r.roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
}

func (r *Roots) weakest(chains [][]*x509.Certificate) *chain {
	var best *chain
	lowest := len(certifying)
	for _, certificates := range chains {
		rank, known := r.rank[string(certificates[len(certificates)-1].Raw)]
		// A chain of one is an EK certificate pinned as its own root: no vendor
		// vouches for it.
		if !known || len(certificates) < 2 || len(certificates) > maxChain || rank > lowest {
			continue
		}
		c := newChain(certifying[rank], certificates)
		c.sent = r.unknown(certificates[1 : len(certificates)-1])
		if rank < lowest || c.outlasts(best) {
			best, lowest = c, rank
		}
	}
	return best
}

// unknown are the hashes of those intermediates that are not configured.
func (r *Roots) unknown(intermediates []*x509.Certificate) (sums [][sha256.Size]byte) {
	for _, c := range intermediates {
		if _, known := r.known[string(c.Raw)]; !known {
			sums = append(sums, sha256.Sum256(c.Raw))
		}
	}
	return sums
}

// newChain notes who signed the EK certificate and when all of the certificates are valid.
func newChain(class attest.EKClass, certificates []*x509.Certificate) *chain {
	c := &chain{
		class: class, notBefore: certificates[0].NotBefore, notAfter: certificates[0].NotAfter,
		issuerKey: certificates[1].RawSubjectPublicKeyInfo,
	}
	for _, certificate := range certificates[1:] {
		if certificate.NotBefore.After(c.notBefore) {
			c.notBefore = certificate.NotBefore
		}
		if certificate.NotAfter.Before(c.notAfter) {
			c.notAfter = certificate.NotAfter
		}
	}
	return c
}

// outlasts compares the ends, then the beginnings.
func (c *chain) outlasts(other *chain) bool {
	if ends := c.notAfter.Compare(other.notAfter); ends != 0 {
		return ends > 0
	}
	return c.notBefore.Before(other.notBefore)
}

// withSent is the configured intermediate certificates and those sent. The pool
// is copied only for one that is not yet in it.
func (r *Roots) withSent(sent [][]byte) (*x509.CertPool, error) {
	pool := r.intermediates
	for i, der := range sent {
		if len(der) > attest.MaxCertificate {
			return nil, attest.Refuse(attest.RuleSize, "intermediate %d of %d bytes", i, len(der))
		}
		if _, known := r.known[string(der)]; known {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, attest.Refuse(attest.RuleEKCertificate, "intermediate %d: %v", i, err)
		}
		if !boundedKey(c.PublicKey) {
			return nil, attest.Refuse(attest.RuleEKCertificate, "intermediate %d has a key out of bounds", i)
		}
		if pool == r.intermediates {
			pool = pool.Clone()
		}
		pool.AddCert(c)
	}
	return pool, nil
}
