// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/attest"
)

// certifying are the classes that a root can stand for, the weakest first.
var certifying = [...]attest.EKClass{attest.ClassVirtual, attest.ClassFirmware, attest.ClassHardware}

// Roots are the TPM vendors a server believes: root certificates, each for one
// class of TPMs, and intermediate ones that hosts need not send. The zero value
// believes nobody. Many may use it at once.
type Roots struct {
	roots         *x509.CertPool
	intermediates *x509.CertPool
	rank          map[string]int      // DER root to the place of its class in certifying
	known         map[string]struct{} // DER intermediates
	issuers       map[string]*issuers // intermediates by their DER subject
	changes       []time.Time         // when what is valid changes, in order
}

// ParseRoots reads PEM bundles of CERTIFICATE blocks: of roots, by the class of
// TPMs they stand for, and of intermediate certificates. Text before a block is
// allowed, as vendors' files have it; another kind of block, a damaged one, a
// certificate that does not parse or has a key below RSA-2048 or on another curve
// than P-256, P-384 and P-521, or text after the last block is an error. So is
// one root key in two classes, and a root of class uncertified: nobody vouches
// there. A certificate may be there twice. Any bundle may be empty; without roots
// nobody is believed.
func ParseRoots(roots map[attest.EKClass][]byte, intermediates []byte) (*Roots, error) {
	r := &Roots{
		roots: x509.NewCertPool(), intermediates: x509.NewCertPool(),
		rank: make(map[string]int), known: make(map[string]struct{}),
	}
	believed, err := r.parseRoots(roots)
	if err != nil {
		return nil, err
	}
	var helping []*x509.Certificate
	err = parseBundle(intermediates, func(c *x509.Certificate) error {
		if _, twice := r.known[string(c.Raw)]; !twice {
			r.known[string(c.Raw)] = struct{}{}
			r.intermediates.AddCert(c)
			helping = append(helping, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("intermediates: %w", err)
	}
	r.index(believed, helping)
	return r, nil
}

func (r *Roots) parseRoots(bundles map[attest.EKClass][]byte) (believed []*x509.Certificate, err error) {
	keys := make(map[string]attest.EKClass)
	read := 0
	for rank, class := range certifying {
		bundle, found := bundles[class]
		if found {
			read++
		}
		err := parseBundle(bundle, func(c *x509.Certificate) error {
			key := string(c.RawSubjectPublicKeyInfo)
			if other, found := keys[key]; found && other != class {
				return fmt.Errorf("%q is a root of class %s too", c.Subject, other)
			}
			keys[key] = class
			r.rank[string(c.Raw)] = rank
			r.roots.AddCert(c)
			believed = append(believed, c)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s roots: %w", class, err)
		}
	}
	if read != len(bundles) {
		return nil, errors.New("roots stand for class hardware, firmware or virtual, and for no other")
	}
	return believed, nil
}

// parseBundle hands each certificate of a PEM bundle to add.
func parseBundle(bundle []byte, add func(*x509.Certificate) error) error {
	for n := 1; ; n++ {
		block, rest := pem.Decode(bundle)
		if block == nil {
			break
		}
		if !oneBlock(bundle[:len(bundle)-len(rest)]) {
			return fmt.Errorf("certificate %d: before it is another that is damaged", n)
		}
		certificate, err := parseBlock(block)
		if err == nil {
			err = add(certificate)
		}
		if err != nil {
			return fmt.Errorf("certificate %d: %w", n, err)
		}
		bundle = rest
	}
	if len(bytes.TrimSpace(bundle)) != 0 {
		return errors.New("text that is not PEM after the last certificate")
	}
	return nil
}

func parseBlock(block *pem.Block) (*x509.Certificate, error) {
	if block.Type != "CERTIFICATE" {
		return nil, errors.New("block is not a certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err == nil && !soundKey(certificate.PublicKey) {
		return nil, fmt.Errorf("%q has a weak or unknown kind of key", certificate.Subject)
	}
	return certificate, err
}

// oneBlock reports whether text is nothing but words and one block: package pem
// passes over a damaged block without a word.
func oneBlock(text []byte) bool {
	return bytes.Count(text, []byte("-----BEGIN ")) == 1 && bytes.Count(text, []byte("-----END ")) == 1
}

// soundKey is what an operator may configure: what it costs is his to bear.
func soundKey(key crypto.PublicKey) bool {
	if k, ok := key.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P521() {
		return true
	}
	if k, ok := key.(*rsa.PublicKey); ok {
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192
	}
	return boundedKey(key)
}

// boundedKey is what a stranger may send: it bounds what a signature check costs
// as well as what it proves.
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
