// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"
)

// BenchmarkRenewal is challenge and login of a host that is known, without
// OpenBao around it; the software TPM's signature is in it.
func BenchmarkRenewal(b *testing.B) {
	w := newPlainWorld(b)
	w.in(w.spire, "keylime")
	b.ReportAllocs()
	for b.Loop() {
		w.in(w.spire, "keylime")
	}
}

// BenchmarkChallenge is the challenge alone.
func BenchmarkChallenge(b *testing.B) {
	w := newPlainWorld(b)
	w.in(w.spire, "keylime")
	data := body(b, w.spire.Request("keylime"))
	b.ReportAllocs()
	for b.Loop() {
		w.must(logical.UpdateOperation, challengePath, data)
	}
}
