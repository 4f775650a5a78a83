// SPDX-License-Identifier: Apache-2.0

// Package tpm is the only production code that holds a TPM handle.
//
// It opens the transports a host may have (a device node, a unix or TCP socket
// of an emulator) and offers the few operations that proofs and keys are made of.
// For a proof: reading an endorsement certificate, loading the endorsement and
// attestation keys, quoting, activating a credential, reading PCRs. For keys: a
// [Storage] root, under which keys are made, certified and sign, and secrets are
// sealed to states of the machine.
//
// It never lets a handle out: what it loads it flushes on every way out, also when
// a context ends, and on an emulator's socket for a program of ours that was killed.
// It never sends or takes a secret but in a session that is salted to a key it was
// told to trust. It never changes a TPM but for one persistent handle of our own,
// never uses a password where dictionary-attack protection counts failures, judges
// nothing it reads (attest/verify does), and speaks to no network but the socket it
// was told to open.
package tpm
