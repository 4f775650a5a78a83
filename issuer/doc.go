// SPDX-License-Identifier: Apache-2.0

// Package issuer makes the key of a certificate on the host, the signing
// request for it, and the judgement of what OpenBao's PKI engine answers.
//
// A caller makes a [Key], sends [Key.CSR] to the sign endpoint and hands the
// answer to [Judge]. Only an [Issued] that Judge returned may be installed:
// its key is ours, its chain reaches the pinned root, its names, usage and
// dates are the ones that were asked for and nothing more.
//
// A key is plain ([ModeFile]), plain until the next boot and sealed to the TPM for
// after it ([ModeSealed]), or in the TPM, which signs ([ModeResident], [Signers]).
// What is needed of a TPM is a [Storage] that the caller opens and closes.
//
// The package opens no connection, reads or writes no file and asks no clock:
// the time is passed in. A private key leaves it only as a [PrivateKey], a
// type that prints and serialises as a placeholder.
package issuer
