// SPDX-License-Identifier: Apache-2.0

// Package docs runs the pages about the auth method, as a test: every request in
// them, in order, in a shell as a reader would, against a real OpenBao over TLS
// with the plugin of this tree, and compares what is answered with the samples.
//
// Blocks of language sh are run whole, of console by their lines that begin with
// "$ "; a block of json is the payload of the request after it or the answer to
// the one before. Hosts are played by software TPMs.
//
// It has no code of its own and nothing imports it. It writes a page only when
// asked to with -update, and makes no network call but to its own server.
package docs
