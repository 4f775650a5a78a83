// SPDX-License-Identifier: Apache-2.0

// Package host is the client's side of the proof: it asks the TPM who it is
// and answers one challenge with one quote.
//
// A [Prover] is opened for one renewal. [Prover.Request] says what to send
// first, [Prover.Login] turns the server's challenge into the proof, in which the
// TPM also says which of the keys it holds, and [Prover.Identity] tells an operator
// what to enrol. [Prover.Storage] gives the storage root under which keys are made
// and sealed; the attestation key has to say which key that is.
//
// What a TPM said once is kept in a small record, so that a renewal costs it one
// command; nothing in the record is trusted, and a wrong one costs a fresh look.
//
// It never talks to a server, never judges a proof (attest/verify does), never
// makes or holds a service's key, never holds a TPM handle itself, and never
// reveals or sends the secret that a credential holds.
package host
