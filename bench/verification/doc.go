// SPDX-License-Identifier: Apache-2.0

// Package verification measures what it costs to verify a proof, by itself:
// Omen's verifier, those of go-attestation and go-tpm-tools on the same proof,
// and one bare ECDSA verification. It counts the processor time of this process,
// garbage collection included, in short slices taken in turn.
//
// It starts no server and makes no network call.
package verification
