// SPDX-License-Identifier: Apache-2.0

package verify

import "math/big"

// rocaPrimes are the small primes that divide the primorial of every RSA key
// size the flawed generator made.
var rocaPrimes = [...]int64{
	3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
	97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
}

// roca reports whether a modulus has the fingerprint of the flawed generator of
// CVE-2017-15361 in some TPMs: modulo each small prime it is a power of 65537.
// About one honest modulus in 2^27 has it too.
func roca(modulus *big.Int) bool {
	for _, p := range rocaPrimes {
		residue := new(big.Int).Mod(modulus, big.NewInt(p)).Int64()
		if !powerOf65537(residue, p) {
			return false
		}
	}
	return true
}

func powerOf65537(n, p int64) bool {
	for x := int64(1); ; {
		if x == n {
			return true
		}
		if x = x * 65537 % p; x == 1 {
			return false
		}
	}
}
