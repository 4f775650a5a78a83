// SPDX-License-Identifier: Apache-2.0

// Package journal writes the log of a program under systemd in the journal's own
// form (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): every attribute is a field,
// OMEN_ and its name, so that journalctl OMEN_CERTIFICATE=verifier finds it.
//
// Every value is one line of printable text of bounded length by then: nothing
// that came over the network can end a field or begin another one. The package
// shows of a value what its own String, Error or LogValue shows and never looks
// inside; what has no text of its own is named by its type alone.
package journal
