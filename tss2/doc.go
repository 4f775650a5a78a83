// SPDX-License-Identifier: Apache-2.0

// Package tss2 reads and writes the key files of keys that live in a TPM: PEM
// with the label TSS2 PRIVATE KEY (draft-bottomley-tpm2-keys).
//
// It knows one form, the one without optional fields: what OpenSSL's provider
// reads in every version. What [Parse] takes, [Key.PEM] writes again byte for
// byte, but for white space around it.
//
// The package opens no file and no TPM and holds no private key: the private half
// in such a file is encrypted by the TPM that made it, and is of use to no other.
// Its errors carry no byte of a file.
package tss2
