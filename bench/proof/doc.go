// SPDX-License-Identifier: Apache-2.0

// Package proof makes one host's proof of its TPM with a real swtpm that has
// booted with a real event log, so that quote, PCR values and log fit together.
// It is the one input that every verifier in this module is measured with.
//
// The server's part of the conversation is played here, by the library itself:
// no server runs, and nothing is decided about the proof.
package proof
