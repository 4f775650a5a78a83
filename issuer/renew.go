// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"
)

// RenewAt is when a certificate should be renewed: after two thirds of its
// lifetime, so that a third is left for trying again. Dates in the wrong order
// mean at once, notBefore.
func RenewAt(notBefore, notAfter time.Time) time.Time {
	lifetime := notAfter.Sub(notBefore)
	if lifetime < 0 {
		return notBefore
	}
	return notBefore.Add(lifetime / 3 * 2)
}

// Earlier is by how much sooner than [RenewAt] one certificate is renewed, up to a
// twelfth of its lifetime: hosts that got theirs in one hour, after an outage, come
// back spread over two. It is the same each time for a certificate, by its serial
// number, and says nothing to who does not know that.
func Earlier(notBefore, notAfter time.Time, serial string) time.Duration {
	sum := sha256.Sum256([]byte(serial))
	share := float64(binary.BigEndian.Uint32(sum[:])) / math.MaxUint32
	return time.Duration(share * float64(max(notAfter.Sub(notBefore), 0)) / 12)
}
