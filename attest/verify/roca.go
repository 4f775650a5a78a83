// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"math/big"
	"math/bits"
	"slices"
)

// rocaPrimes are the small primes that divide the primorial of every RSA key
// size the flawed generator made.
var rocaPrimes = [...]uint{
	3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
	97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
}

// roca reports whether a modulus has the fingerprint of the flawed generator of
// CVE-2017-15361 in some TPMs: modulo each small prime it is a power of 65537.
// About one honest modulus in 2^27 has it too.
func roca(modulus *big.Int) bool {
	for primes := rocaPrimes[:]; len(primes) > 0; {
		product, n := wordProduct(primes)
		residue := mod(modulus, product)
		for _, p := range primes[:n] {
			if !powerOf65537(residue%p, p) {
				return false
			}
		}
		primes = primes[n:]
	}
	return true
}

// wordProduct multiplies as many of the first numbers as fit a machine word, so
// that one long division serves them all.
func wordProduct(numbers []uint) (product uint, n int) {
	product = 1
	for _, factor := range numbers {
		high, low := bits.Mul(product, factor)
		if high != 0 {
			break
		}
		product, n = low, n+1
	}
	return product, n
}

// mod is n modulo m, for n ≥ 0.
func mod(n *big.Int, m uint) (residue uint) {
	for _, word := range slices.Backward(n.Bits()) {
		residue = bits.Rem(residue, uint(word), m)
	}
	return residue
}

func powerOf65537(n, p uint) bool {
	for x := uint(1); ; {
		if x == n {
			return true
		}
		if x = x * (65537 % p) % p; x == 1 {
			return false
		}
	}
}
