// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
)

// IsRoot tells the root of a bundle from what is below it, by its names: whoever
// gave us the bundle vouches for it, a signature by itself would add nothing.
func IsRoot(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject)
}

// ParseCertificates parses every CERTIFICATE block; other blocks are an error.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("larger than %d bytes", MaxFile)
	}
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("unexpected PEM block %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, cert)
	}
	return certificates, nil
}

// EncodeCertificates writes certificates as PEM, in their order.
func EncodeCertificates(certificates []*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, cert := range certificates {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return text.Bytes()
}

// IssuersOf finds in pool what vouches for cert, and for that, as far as it goes:
// people's bundles may end before the root.
func IssuersOf(cert *x509.Certificate, pool []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for open := []*x509.Certificate{cert}; len(open) > 0; open = open[1:] {
		for _, ca := range pool {
			if bytes.Equal(ca.RawSubject, open[0].RawIssuer) && !slices.ContainsFunc(found, ca.Equal) && open[0].CheckSignatureFrom(ca) == nil {
				found, open = append(found, ca), append(open, ca)
			}
		}
	}
	return found
}

// Bundle builds a CA file: intermediates before roots, each once, in the order they
// first appear.
func Bundle(certificates []*x509.Certificate) []byte {
	var intermediates, roots []*x509.Certificate
	seen := map[string]bool{}
	for _, cert := range certificates {
		if seen[string(cert.Raw)] || !cert.IsCA {
			continue
		}
		seen[string(cert.Raw)] = true
		if IsRoot(cert) {
			roots = append(roots, cert)
		} else {
			intermediates = append(intermediates, cert)
		}
	}
	return EncodeCertificates(append(intermediates, roots...))
}
