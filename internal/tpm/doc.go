// SPDX-License-Identifier: Apache-2.0

// Package tpm is the only production code that holds a TPM handle.
//
// It opens the transports a host may have (a device node, a unix or TCP socket
// of an emulator) and offers the few operations a proof is made of: reading an
// endorsement certificate, loading the endorsement and attestation keys,
// quoting, activating a credential, reading PCRs.
//
// It never lets a handle out: a key is used inside a With… block and flushed on
// every way out of it. It never changes a TPM but for one persistent handle of
// our own, never uses a password where dictionary-attack protection counts
// failures, judges nothing it reads (attest/verify does), and speaks to no
// network but the socket it was told to open.
package tpm
