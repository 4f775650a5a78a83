// SPDX-License-Identifier: Apache-2.0

// Package attest is the seam: the words a host and the OpenBao auth method say
// to each other when a host proves its TPM, and the bytes both sides must
// compute alike.
//
// A reader starts with [ChallengeRequest], [Challenge] and [LoginRequest], in
// the order in which they travel, then [QuoteBinding] for what one quote proves.
// The shapes of the two keys are in [AK] and [EKPublic]; the words with which a
// server refuses are the [Rule] constants.
//
// Check methods say that a message is complete and within bounds. Whether it is
// true is for package attest/verify alone.
//
// This package is pure: it opens no device, makes no network call, reads no
// file, asks no clock and keeps no state.
package attest
