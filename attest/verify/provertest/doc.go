// SPDX-License-Identifier: Apache-2.0

// Package provertest plays hosts for the tests of the server's side.
//
// A [Device] proves a real TPM (swtpm) with the few TPM commands that takes. A
// [Liar] is a TPM in software whose vendor is a [Vendor] of the test: it can
// answer honestly, or sign whatever a test bends.
//
// No production code imports it. It is no model of a client: it checks nothing
// that a server says.
package provertest
