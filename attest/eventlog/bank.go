// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"

	"funlab.casa/omen/attest"
)

// maxDigest is the size of the longest digest of a bank: SHA-384.
const maxDigest = sha512.Size384

// bank is the PCR bank whose digests are read.
type bank struct {
	name      string
	algorithm uint16 // TPM_ALG_ID
	size      int    // of a digest, in bytes
}

func newBank(name string) (bank, error) {
	s := attest.Selection{Bank: name, PCRs: []int{0}}
	if err := s.Check(); err != nil {
		return bank{}, err
	}
	return bank{name: name, algorithm: uint16(s.Algorithm()), size: s.Hash().Size()}, nil
}

// digest is room for a digest of either bank, so that hashing allocates nothing.
type digest [maxDigest]byte

func (b bank) sum(data []byte) (d digest) {
	if b.size == sha512.Size384 {
		sum := sha512.Sum384(data)
		copy(d[:], sum[:])
		return d
	}
	sum := sha256.Sum256(data)
	copy(d[:], sum[:])
	return d
}

// hashes reports whether want is the digest of data.
func (b bank) hashes(data, want []byte) bool {
	d := b.sum(data)
	return bytes.Equal(d[:b.size], want)
}
