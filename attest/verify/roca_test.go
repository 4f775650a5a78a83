// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/rand"
	"math/big"
	"testing"

	"funlab.casa/omen/attest/verify"
)

// discreteLog reports the fingerprint by way of package big alone.
func discreteLog(n *big.Int) bool {
	for _, prime := range verify.RocaPrimes() {
		p, power, found := big.NewInt(int64(prime)), big.NewInt(1), false
		residue := new(big.Int).Mod(n, p)
		for range prime {
			found = found || power.Cmp(residue) == 0
			power.Mul(power, big.NewInt(65537)).Mod(power, p)
		}
		if !found {
			return false
		}
	}
	return true
}

func TestROCA(t *testing.T) {
	flawed := rocaModulus(t)
	numbers := []*big.Int{flawed, new(big.Int).Add(flawed, big.NewInt(2)), big.NewInt(1), big.NewInt(0), big.NewInt(65537)}
	product := big.NewInt(1)
	for _, p := range verify.RocaPrimes() {
		product.Mul(product, new(big.Int).SetUint64(uint64(p)))
	}
	for _, p := range verify.RocaPrimes() { // like the flawed one but for one prime
		step := new(big.Int).Div(product, new(big.Int).SetUint64(uint64(p)))
		for n := new(big.Int).Add(flawed, step); len(numbers) < 4000 && n.Cmp(flawed) != 0; n = new(big.Int).Add(n, step) {
			numbers = append(numbers, n)
			if new(big.Int).Mod(new(big.Int).Sub(n, flawed), product).Sign() == 0 {
				break
			}
		}
	}
	for range 1000 {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 2048))
		check(t, err)
		numbers = append(numbers, n)
	}
	yes := 0
	for _, n := range numbers {
		want := discreteLog(n)
		if want {
			yes++
		}
		if got := verify.ROCA(n); got != want {
			t.Errorf("%x: %t", n, got)
		}
	}
	if yes < 10 || yes == len(numbers) {
		t.Errorf("%d of %d numbers have the fingerprint: shows nothing", yes, len(numbers))
	}
}

func BenchmarkROCA(b *testing.B) {
	flawed := rocaModulus(b)
	b.ReportAllocs()
	for b.Loop() {
		verify.ROCA(flawed)
	}
}
