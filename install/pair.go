// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/tss2"
)

// maxFile bounds every file of a set, in bytes.
const maxFile = 64 << 10

// pair is a certificate with its key, parsed and found to belong together.
type pair struct {
	chain  []*x509.Certificate // leaf first, without a root
	signer crypto.Signer
	key    []byte // PEM of signer, as it is written; of a *residentKey what the TPM loads it from
}

func (p *pair) leaf() *x509.Certificate { return p.chain[0] }

// chainPEM is the certificate file: the Rust agent reads its first block only,
// so the leaf comes first.
func (p *pair) chainPEM() []byte { return encode(p.chain) }

// judgeItem parses an item and checks what must hold before it may be written:
// the key fits, the usage is exactly the profile's, the time is within the
// validity, the chain reaches a root of the item's CA.
func judgeItem(item Item, profile keylime.Profile, known authorities, now time.Time) (*pair, error) {
	parsed, err := parsePair(item.Chain, item.Key)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(parsed.leaf().ExtKeyUsage, []x509.ExtKeyUsage{profile.Usage}) || len(parsed.leaf().UnknownExtKeyUsage) > 0 {
		return nil, fmt.Errorf("extended key usages of %s must be exactly the one it needs: Keylime takes every client certificate for an administrator", profile.Name)
	}
	ca, err := parseCertificates(item.CA)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	if err := known.vouch(parsed, ca, profile.Usage, now); err != nil {
		return nil, err
	}
	if profile.Usage == x509.ExtKeyUsageServerAuth {
		return parsed, probe.Target{Leaf: parsed.leaf()}.HasName()
	}
	return parsed, nil
}

func parsePair(chain, key []byte) (*pair, error) {
	if len(chain) > maxFile || len(key) > maxFile {
		return nil, fmt.Errorf("chain or key larger than %d bytes", maxFile)
	}
	certificates, err := parseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if len(certificates) == 0 {
		return nil, errors.New("chain holds no certificate")
	}
	private, block, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificates[0].PublicKey) {
		return nil, errors.New("private key does not belong to the certificate")
	}
	withoutRoot := slices.DeleteFunc(certificates[1:], isRoot)
	return &pair{chain: certificates[:1+len(withoutRoot)], signer: private, key: pem.EncodeToMemory(block)}, nil
}

// parseKey accepts one unencrypted key, or one that is in the TPM, and nothing
// else. Errors of the parsers are not wrapped: they describe bytes of the key.
func parseKey(text []byte) (crypto.Signer, *pem.Block, error) {
	if tss2.Is(text) {
		key, err := parseResident(text)
		if err != nil {
			return nil, nil, err
		}
		block, _ := pem.Decode(key.text)
		return key, block, nil
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("private key is not exactly one PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, nil, errors.New("private key is neither PKCS#8, SEC 1, PKCS#1 nor one in a TPM")
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, nil, errors.New("private key cannot be parsed")
	}
	return signer, &pem.Block{Type: block.Type, Bytes: block.Bytes}, nil
}

// authorities are the CAs of one installation, by their certificates: those that
// were found to reach their root. The certificates of a set mostly share them,
// and what is above the leaf needs to be verified once.
type authorities map[string]*x509.CertPool

// vouch refuses a pair whose chain does not reach a root of ca.
func (a authorities) vouch(p *pair, ca []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	above := slices.Concat(p.chain[1:], ca)
	var key []byte
	for _, cert := range above {
		key = append(key, cert.Raw...)
	}
	pool, found := a[string(key)]
	if !found {
		pool = reachRoot(above, now)
		a[string(key)] = pool
	}
	_, err := p.leaf().Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("chain does not reach the root in the CA file: %w", err)
	}
	return nil
}

// reachRoot picks the roots, and those of the others that reach one of them.
func reachRoot(certificates []*x509.Certificate, now time.Time) *x509.CertPool {
	roots, intermediates, reach := x509.NewCertPool(), x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range certificates {
		if isRoot(cert) {
			roots.AddCert(cert)
			reach.AddCert(cert)
		} else {
			intermediates.AddCert(cert)
		}
	}
	seen := map[string]bool{}
	for _, cert := range certificates {
		if isRoot(cert) || seen[string(cert.Raw)] {
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

// isRoot tells the root of a bundle from what is below it, by its names: whoever
// gave us the bundle vouches for it, a signature by itself would add nothing.
func isRoot(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject)
}

// parseCertificates parses every CERTIFICATE block; other blocks are an error.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
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

func encode(certificates []*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, cert := range certificates {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return text.Bytes()
}
