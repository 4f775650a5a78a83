// SPDX-License-Identifier: Apache-2.0

// Package keypair reads and judges certificates with their keys: [Parse] takes a chain
// and a key that belong together and nothing else, [Authorities] whether the chain
// reaches a root. A key is PKCS#8, SEC 1 or PKCS#1, or in the TPM ([Resident]).
//
// The package never touches the disk, the network or a TPM, and never shows a key: a
// [KeyPEM] has no text, and errors of the parsers of keys are not passed on.
package keypair
