// SPDX-License-Identifier: Apache-2.0

//go:build !long

package crash

// What is looked at in a minute: every so manyth case.
const (
	long        = false
	strideKill  = 3
	strideError = 17
	strideCut   = 4
	strideTwice = 331
)
