// SPDX-License-Identifier: Apache-2.0

// Package wake waits for a time of the wall clock: over a suspend of the machine, and
// over a clock that is set.
//
// It holds one timer of the kernel while somebody waits, and nothing else. It never sets
// a clock, and never wakes a machine that sleeps.
package wake
