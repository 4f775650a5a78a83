// SPDX-License-Identifier: Apache-2.0

// Package probe asks a running service whether it serves what is installed.
//
// A certificate that can be seen is not yet a working service: every probe is a
// complete handshake with the standard verification, up to the root, for a name
// of the installed certificate, and where this host has a client certificate a
// complete request. It is the only part of install that opens connections.
// The package never skips verification, never follows a redirect, never uses a
// proxy, reads at most 1 MiB of an answer, and changes nothing anywhere but by
// Reactivate.
package probe
