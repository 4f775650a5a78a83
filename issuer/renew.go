// SPDX-License-Identifier: Apache-2.0

package issuer

import "time"

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
