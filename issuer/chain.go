// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxCertificatePEM = 16 << 10 // one certificate; a real one is about 1 KiB
	maxChain          = 8        // certificates beside the leaf
)

// MaxAnchors bounds the roots of one anchor: the one in use, and others while a
// CA is replaced.
const MaxAnchors = 4

// ParseAnchors reads the roots that chains must reach from the text of their file:
// one PEM certificate, or up to [MaxAnchors] while a CA is replaced, each a CA that
// signed itself and none twice. Their dates are looked at when a reply is judged.
func ParseAnchors(text []byte) ([]*x509.Certificate, error) {
	anchors, err := parseCertificates("anchor", text, MaxAnchors)
	if err != nil {
		return nil, err
	}
	for i, anchor := range anchors {
		if !anchor.IsCA || !isSelfSigned(anchor) {
			return nil, broken(RuleAnchor, "the pinned certificate %q is not a self-signed CA", anchor.Subject)
		}
		if contains(anchors[:i], anchor) {
			return nil, broken(RuleAnchor, "the pinned certificate %q stands twice", anchor.Subject)
		}
	}
	return anchors, nil
}

// maxBundle bounds the certificates of one bundle: the roots, and intermediates.
const maxBundle = 16

// ParseBundle reads a CA bundle from the text of its file: PEM certificates, each
// a CA, of which one to [MaxAnchors] signed themselves. The others are
// intermediates; without intermediates it is what [ParseAnchors] reads.
func ParseBundle(text []byte) (roots, intermediates []*x509.Certificate, err error) {
	all, err := parseCertificates("CA bundle", text, maxBundle)
	if err != nil {
		return nil, nil, err
	}
	for _, cert := range all {
		switch {
		case !cert.IsCA:
			return nil, nil, broken(RuleChain, "%q in the CA bundle is not a CA", cert.Subject)
		case isSelfSigned(cert):
			roots = append(roots, cert)
		default:
			intermediates = append(intermediates, cert)
		}
	}
	if len(roots) == 0 || len(roots) > MaxAnchors {
		return nil, nil, broken(RuleAnchor, "the CA bundle holds %d self-signed roots, wanted are 1 to %d", len(roots), MaxAnchors)
	}
	return roots, intermediates, nil
}

// EncodeCertificates writes certificates as PEM blocks that end in a newline each.
func EncodeCertificates(certificates []*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certificates {
		text = append(text, encodeCertificate(cert)...)
	}
	return text
}

func contains(list []*x509.Certificate, cert *x509.Certificate) bool {
	return slices.ContainsFunc(list, cert.Equal)
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

// parseCertificates reads text that is PEM certificates without headers, at least
// one and at most limit, with nothing but white space around them.
func parseCertificates(what string, text []byte, limit int) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	rest := string(text)
	for more := true; more; more = strings.TrimSpace(rest) != "" {
		if len(certificates) == limit {
			return nil, broken(RuleSize, "%s: more than %d certificates", what, limit)
		}
		var one string
		if before, after, found := strings.Cut(rest, endOfBlock); found {
			one, rest = before+endOfBlock, after
		} else {
			one, rest = rest, ""
		}
		cert, err := parseCertificate(what, one)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, cert)
	}
	return certificates, nil
}

const endOfBlock = "-----END CERTIFICATE-----"

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

// buildChain finds the shortest path from leaf over the served CAs to one of the
// anchors: certificate first, root last.
func buildChain(leaf *x509.Certificate, served, anchors []*x509.Certificate,
	usage Usage, now time.Time,
) ([]*x509.Certificate, error) {
	if len(anchors) == 0 {
		return nil, broken(RuleAnchor, "no root is pinned")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, anchor := range anchors {
		roots.AddCert(anchor)
	}
	for _, cert := range served {
		switch {
		case contains(anchors, cert):
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
		return nil, chainError(leaf, anchors, err)
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
func chainError(leaf *x509.Certificate, anchors []*x509.Certificate, err error) error {
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
	var pinned []string
	for _, anchor := range anchors {
		pinned = append(pinned, fmt.Sprintf("%q", anchor.Subject))
	}
	return brokenBy(RuleChain, "no chain to the pinned root "+strings.Join(pinned, " or "), err)
}
