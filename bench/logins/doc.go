// SPDX-License-Identifier: Apache-2.0

// Package logins measures logins through real OpenBao servers, one node and
// three of a raft cluster, over TLS: the tpm method against a plugin that does
// nothing (bench/null), and against AppRole and cert auth. A login of the tpm
// method is counted whole, challenge and login.
//
// The hosts are TPMs in software, whose answer costs the caller one signature, 36
// µs. They sign as much for the plugin that does nothing, so that what the caller
// spends is the same on both sides.
package logins
