// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Authorities are the CAs of one installation, by their certificates: those that
// were found to reach their root. The certificates of a set mostly share them,
// and what is above the leaf needs to be verified once.
type Authorities map[string]*x509.CertPool

// Vouch refuses a pair whose chain does not reach a root of ca.
func (a Authorities) Vouch(p *Pair, ca []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	above := slices.Concat(p.Chain[1:], ca)
	var key []byte
	for _, cert := range above {
		key = append(key, cert.Raw...)
	}
	pool, found := a[string(key)]
	if !found {
		pool = reachRoot(above, now)
		a[string(key)] = pool
	}
	_, err := p.Leaf().Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("chain does not reach the root in the CA file: %w", err)
	}
	return nil
}

// reachRoot picks the roots, and those of the others that reach one of them.
func reachRoot(certificates []*x509.Certificate, now time.Time) *x509.CertPool {
	roots, intermediates, reach := x509.NewCertPool(), x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range certificates {
		if IsRoot(cert) {
			roots.AddCert(cert)
			reach.AddCert(cert)
		} else {
			intermediates.AddCert(cert)
		}
	}
	seen := map[string]bool{}
	for _, cert := range certificates {
		if IsRoot(cert) || seen[string(cert.Raw)] {
			continue
		}
		seen[string(cert.Raw)] = true
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil && cert.IsCA {
			reach.AddCert(cert)
		}
	}
	return reach
}
