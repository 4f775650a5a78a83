// SPDX-License-Identifier: Apache-2.0

package tss2

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// TPM_ALG_ID and TPM_ECC_CURVE (TPM 2.0 part 2, sections 6.3 and 6.4).
const (
	algSHA256 = 0x000b
	algNull   = 0x0010
	algECDSA  = 0x0018
	algECC    = 0x0023
	curveP256 = 0x0003
)

// Bits of TPMA_OBJECT (TPM 2.0 part 2, section 8.3).
const (
	restricted = 1 << 16
	decrypt    = 1 << 17
	sign       = 1 << 18
)

var errPublic = errors.New("TSS2 key: not a P-256 key that signs")

// PublicKey is the public half. It is refused where the key cannot sign what TLS
// signs: another curve, a restricted key, one that decrypts.
func (k Key) PublicKey() (*ecdsa.PublicKey, error) {
	s := cryptobyte.String(k.Public)
	var kind, nameAlg, symmetric, curve, kdf uint16
	var attributes uint32
	var policy, x, y cryptobyte.String
	ok := s.ReadUint16(&kind) && kind == algECC &&
		s.ReadUint16(&nameAlg) &&
		s.ReadUint32(&attributes) && attributes&sign != 0 && attributes&(restricted|decrypt) == 0 &&
		s.ReadUint16LengthPrefixed(&policy) &&
		s.ReadUint16(&symmetric) && symmetric == algNull &&
		readScheme(&s) &&
		s.ReadUint16(&curve) && curve == curveP256 &&
		s.ReadUint16(&kdf) && kdf == algNull &&
		s.ReadUint16LengthPrefixed(&x) && s.ReadUint16LengthPrefixed(&y) && s.Empty()
	if !ok || len(x) != 32 || len(y) != 32 {
		return nil, errPublic
	}
	point := append(append([]byte{4}, x...), y...) // SEC 1, section 2.3.3
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, errPublic
	}
	return public, nil
}

// readScheme takes a TPMT_ECC_SCHEME that lets the key make ECDSA signatures over
// SHA-256.
func readScheme(s *cryptobyte.String) bool {
	var scheme, hash uint16
	if !s.ReadUint16(&scheme) {
		return false
	}
	return scheme == algNull || scheme == algECDSA && s.ReadUint16(&hash) && hash == algSHA256
}
