// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"math/big"
	"time"
)

// Kept is how many chains are found without checking the signatures above the
// issuer; 0 says that package x509 is asked.
func (r *Roots) Kept(ek []byte, now time.Time) (int, error) {
	c, _, err := parseCertificate(ek)
	if err != nil {
		return 0, err
	}
	if _, err := shape(c); err != nil {
		return 0, err
	}
	return len(r.keptChains(c, now)), nil
}

// ROCA is roca, and RocaPrimes what it goes by.
func ROCA(modulus *big.Int) bool { return roca(modulus) }

func RocaPrimes() []uint { return rocaPrimes[:] }
