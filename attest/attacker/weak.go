// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
)

// RSAKeyWithout makes an RSA public key of any size and exponent whose private
// half nobody has.
func RSAKeyWithout(bits, exponent int) (*rsa.PublicKey, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	if err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: n.SetBit(n.SetBit(n, 0, 1), bits-1, 1), E: exponent}, nil
}

// ROCAKey makes an RSA-2048 public key the way the generator of CVE-2017-15361
// does: both primes k·M + (65537^a mod M), M being the product of the first 126
// primes.
func ROCAKey() (*rsa.PublicKey, error) {
	m := big.NewInt(1)
	for n, found := int64(2), 0; found < 126; n++ {
		if big.NewInt(n).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(n))
			found++
		}
	}
	for {
		p, err := rocaPrime(m)
		if err != nil {
			return nil, err
		}
		q, err := rocaPrime(m)
		if err != nil {
			return nil, err
		}
		if n := p.Mul(p, q); n.BitLen() == 2048 {
			return &rsa.PublicKey{N: n, E: 65537}, nil
		}
	}
}

func rocaPrime(m *big.Int) (*big.Int, error) {
	for {
		a, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
		if err != nil {
			return nil, err
		}
		k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1024-m.BitLen())))
		if err != nil {
			return nil, err
		}
		p := a.Exp(big.NewInt(65537), a, m)
		if p.Add(p, k.Mul(k, m)); p.BitLen() == 1024 && p.ProbablyPrime(1) {
			return p, nil
		}
	}
}

// OffCurve is a DER SubjectPublicKeyInfo of a P-256 key whose point is not on
// P-256.
func OffCurve() ([]byte, error) {
	key, err := P256.Generate()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return flip(spki, -1), nil
}
