// SPDX-License-Identifier: Apache-2.0

//go:build long

package crash

// Everything.
const (
	long        = true
	strideKill  = 1
	strideError = 1
	strideCut   = 1
	strideTwice = 23
)
