// SPDX-License-Identifier: Apache-2.0

// Package bootpolicy decides whether what a machine booted is what its operator
// expects.
//
// [Observe] turns quoted PCR values and an event log into a [State]. An operator
// promotes a State, by its [State.ID], to an [Entry] of a [Baseline], or writes
// lists by hand. [Policy.Judge] compares a State with what is live and gives a
// [Verdict] that names what moved; its zero value is a refusal, as is everything
// that a policy does not know.
//
// This package never reads a clock, a file or a device, makes no network call
// and keeps no state. Time is a parameter. What a State calls a component is a
// remark of the host and decides nothing.
package bootpolicy
