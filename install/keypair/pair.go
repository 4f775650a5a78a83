// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"funlab.casa/omen/tss2"
)

// MaxFile bounds every file of a set, in bytes.
const MaxFile = 64 << 10

// Pair is a certificate with its key, parsed and found to belong together.
type Pair struct {
	Chain  []*x509.Certificate // leaf first, without a root
	Signer crypto.Signer
	Key    []byte // PEM of signer, as it is written; of a *Resident what the TPM loads it from
}

// Leaf is the certificate of the key.
func (p *Pair) Leaf() *x509.Certificate { return p.Chain[0] }

// ChainPEM is the certificate file: the Rust agent reads its first block only,
// so the leaf comes first.
func (p *Pair) ChainPEM() []byte { return EncodeCertificates(p.Chain) }

// Parse takes a chain and the private key of its first certificate; roots in the chain
// are left out.
func Parse(chain, key []byte) (*Pair, error) {
	if len(chain) > MaxFile || len(key) > MaxFile {
		return nil, fmt.Errorf("chain or key larger than %d bytes", MaxFile)
	}
	certificates, err := ParseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if len(certificates) == 0 {
		return nil, errors.New("chain holds no certificate")
	}
	private, block, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificates[0].PublicKey) {
		return nil, errors.New("private key does not belong to the certificate")
	}
	withoutRoot := slices.DeleteFunc(certificates[1:], IsRoot)
	return &Pair{Chain: certificates[:1+len(withoutRoot)], Signer: private, Key: pem.EncodeToMemory(block)}, nil
}

// ParseKey accepts one unencrypted key, or one that is in the TPM, and nothing
// else. Errors of the parsers are not wrapped: they describe bytes of the key.
func ParseKey(text []byte) (crypto.Signer, *pem.Block, error) {
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
