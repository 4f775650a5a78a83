// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Roots are the TPM vendors a server believes: root certificates, and
// intermediate ones that hosts need not send. The zero value believes nobody.
type Roots struct {
	roots         *x509.CertPool
	intermediates *x509.CertPool
}

// ParseRoots reads two PEM bundles of CERTIFICATE blocks. Text before a block is
// allowed, as vendors' files have it; another kind of block, a damaged one, a
// certificate that does not parse or text after the last block is an error. Either bundle may be
// empty; without roots nobody is believed.
func ParseRoots(roots, intermediates []byte) (*Roots, error) {
	var (
		r   Roots
		err error
	)
	if r.roots, err = parsePool(roots); err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	if r.intermediates, err = parsePool(intermediates); err != nil {
		return nil, fmt.Errorf("intermediates: %w", err)
	}
	return &r, nil
}

func parsePool(bundle []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for n := 1; ; n++ {
		block, rest := pem.Decode(bundle)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is not a certificate", n)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n, err)
		}
		if !oneBlock(bundle[:len(bundle)-len(rest)]) {
			return nil, fmt.Errorf("certificate %d: before it is another that is damaged", n)
		}
		pool.AddCert(certificate)
		bundle = rest
	}
	if len(bytes.TrimSpace(bundle)) != 0 {
		return nil, errors.New("text that is not PEM after the last certificate")
	}
	return pool, nil
}

// oneBlock reports whether text is nothing but words and one block: package pem
// passes over a damaged block without a word.
func oneBlock(text []byte) bool {
	return bytes.Count(text, []byte("-----BEGIN ")) == 1 && bytes.Count(text, []byte("-----END ")) == 1
}
