// SPDX-License-Identifier: Apache-2.0

// Package openssl has programs that know nothing of Omen use its keys in a TPM:
// openssl s_server with the provider of Debian 12, and, where a newer provider is
// given from outside, Python's ssl module as server and as client.
//
// Between the programs and the software TPM stands tpm2-abrmd on a message bus of
// its own: the provider of Debian 12 needs a resource manager, and a program that
// is killed must leave nothing in the TPM.
//
// The package never touches a bus, a device or a service of the machine.
package openssl
