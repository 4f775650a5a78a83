// SPDX-License-Identifier: Apache-2.0

// Package plugin is the OpenBao auth method of type tpm: hosts log in with a
// quote of their TPM instead of a secret. There is one path_*.go per endpoint;
// path_login.go is the one to read first.
//
// What a host may claim is judged by attest/verify; this package decides who may
// log in, and with which role. It keeps challenges sealed and in memory, so that
// nobody who has not proven a TPM causes a write.
//
// It never stores anything before proof, never puts into an answer what a client
// sent, never returns a token together with an error, and opens no connection of
// its own. The client's half of the protocol is not linked into it.
package plugin
