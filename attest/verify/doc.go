// SPDX-License-Identifier: Apache-2.0

// Package verify is the server's half of the protocol of package attest: bytes
// from a host in, facts or an *attest.Refusal out.
//
// [CheckEK] judges the endorsement key for a challenge, [Credential] wraps the
// challenge's secret for it, and [Login] plays the whole judgement of a proof;
// its comment is the list of checks.
//
// It does no I/O, makes no network call, reads no file, keeps no state and asks
// no clock: time and randomness are passed in. It never believes a size, an
// algorithm or a Name that the host sent. Who may log in is not its business.
package verify
