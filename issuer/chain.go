// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	maxCertificatePEM = 16 << 10 // one certificate; a real one is about 1 KiB
	maxChain          = 8        // certificates beside the leaf
)

// ParseAnchor reads the root that chains must reach from the text of its file:
// exactly one PEM certificate, a CA that signed itself. Its dates are looked at
// when a reply is judged.
func ParseAnchor(text []byte) (*x509.Certificate, error) {
	anchor, err := parseCertificate("anchor", string(text))
	if err != nil {
		return nil, err
	}
	if !anchor.IsCA || !isSelfSigned(anchor) {
		return nil, broken(RuleAnchor, "the pinned certificate %q is not a self-signed CA", anchor.Subject)
	}
	return anchor, nil
}

// isSelfSigned reports whether cert is issued and signed by itself
// (RFC 5280 section 3.2).
func isSelfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(cert) == nil
}

// parseReply returns the certificate and the CA certificates that came with it.
func parseReply(reply Reply) (leaf *x509.Certificate, served []*x509.Certificate, err error) {
	leaf, err = parseCertificate("certificate", reply.Certificate)
	if err != nil {
		return nil, nil, err
	}
	if len(reply.CAChain) > maxChain {
		return nil, nil, broken(RuleSize, "ca_chain holds %d certificates, at most %d", len(reply.CAChain), maxChain)
	}
	texts := reply.CAChain
	if reply.IssuingCA != "" {
		texts = append([]string{reply.IssuingCA}, texts...)
	}
	for i, text := range texts {
		cert, err := parseCertificate(fmt.Sprintf("CA certificate %d", i), text)
		if err != nil {
			return nil, nil, err
		}
		served = append(served, cert)
	}
	return leaf, served, nil
}

// parseCertificate reads text that is one PEM certificate without headers, with
// nothing but white space around it.
func parseCertificate(what, text string) (*x509.Certificate, error) {
	if len(text) > maxCertificatePEM {
		return nil, broken(RuleSize, "%s: %d bytes, at most %d", what, len(text), maxCertificatePEM)
	}
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
		return nil, broken(RuleSyntax, "%s: not a PEM certificate", what)
	}
	if strings.Count(text, "-----BEGIN") != 1 { // pem.Decode steps over blocks that it cannot read
		return nil, broken(RuleSyntax, "%s: more than one PEM block", what)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(rest) != 0 {
		return nil, broken(RuleSyntax, "%s: not exactly one PEM certificate", what)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, brokenBy(RuleSyntax, what, err)
	}
	return cert, nil
}

// encodeCertificate returns cert as PEM that ends in a newline, unlike the
// texts of a reply.
func encodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// buildChain finds the shortest path from leaf over the served CAs to anchor:
// certificate first, root last.
func buildChain(leaf *x509.Certificate, served []*x509.Certificate, anchor *x509.Certificate,
	usage Usage, now time.Time,
) ([]*x509.Certificate, error) {
	if anchor == nil {
		return nil, broken(RuleAnchor, "no root is pinned")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(anchor)
	for _, cert := range served {
		switch {
		case cert.Equal(anchor):
			continue // sent along, and trusted only because it is pinned
		case !cert.IsCA:
			return nil, broken(RuleChain, "%q in the chain is not a CA", cert.Subject)
		case isSelfSigned(cert):
			return nil, broken(RuleAnchor, "the reply brings the root %q, which is not the pinned one", cert.Subject)
		}
		intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage.extKeyUsage()},
	})
	if err != nil {
		return nil, chainError(leaf, anchor, err)
	}
	shortest := chains[0]
	for _, chain := range chains[1:] {
		if len(chain) < len(shortest) {
			shortest = chain
		}
	}
	return shortest, nil
}

// chainError gives the reason of crypto/x509 the name of our rule.
func chainError(leaf, anchor *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.Expired:
			if !invalid.Cert.Equal(leaf) {
				return brokenBy(RuleIssuerExpired, fmt.Sprintf("%q", invalid.Cert.Subject), err)
			}
		case x509.IncompatibleUsage:
			return brokenBy(RuleUsage, "extended key usage", err)
		}
	}
	return brokenBy(RuleChain, fmt.Sprintf("no chain to the pinned root %q", anchor.Subject), err)
}
