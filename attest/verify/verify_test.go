// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"errors"
	"sync"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/attest/verify/provertest"
)

const audience = "https://spire.funlab.casa:8200||auth/tpm"

var selection = attest.Selection{Bank: "sha256", PCRs: []int{0, 2, 4, 7}}

// wantRule fails unless err is a refusal with this rule; "" wants no error.
func wantRule(t testing.TB, err error, want attest.Rule) {
	t.Helper()
	var r *attest.Refusal
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want == "":
	case !errors.As(err, &r):
		t.Fatalf("got %v, want a refusal %s", err, want)
	case r.Rule != want:
		t.Fatalf("got rule %s (%s), want %s", r.Rule, r.Detail, want)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cast is one vendor with two TPMs, made once: RSA keys take their time.
type cast struct {
	vendor       *provertest.Vendor
	liar, second *provertest.Liar
}

var players = struct {
	once sync.Once
	cast
}{}

func newCast(t testing.TB) cast {
	t.Helper()
	players.once.Do(func() {
		players.vendor = provertest.NewVendor(t)
		players.liar = provertest.NewLiar(t, players.vendor)
		players.second = provertest.NewLiar(t, players.vendor)
	})
	liar, second := *players.liar, *players.second // tests may change keys
	return cast{vendor: players.vendor, liar: &liar, second: &second}
}

func roots(t testing.TB, pem string) *verify.Roots {
	t.Helper()
	r, err := verify.ParseRoots(hardware([]byte(pem)), nil)
	check(t, err)
	return r
}

// hardware is a configuration that believes these roots for hardware TPMs.
func hardware(pem []byte) map[attest.EKClass][]byte {
	return map[attest.EKClass][]byte{attest.ClassHardware: pem}
}
