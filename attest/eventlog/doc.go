// SPDX-License-Identifier: Apache-2.0

// Package eventlog reads the event log of a PC Client firmware and says what it
// proves about quoted PCR values.
//
// A reader starts with [Parse], then [Log.Against]: only a log that replays to
// the quoted values gives a [Proven], and only a Proven answers questions.
//
// A TPM measures digests, nothing else. Whoever is root on the host can write
// any event type and any data beside a digest, so neither is believed unless the
// data hashes to the digest. What remains is a remark for people, such as
// [Component.Name].
//
// This package never reads a file, a device or a clock, never parses a
// certificate, keeps no state, and never copies the log: digests and data of
// events are parts of the bytes that were given to Parse.
package eventlog
