// SPDX-License-Identifier: Apache-2.0

// Package tpmsim is swtpm as a TPM for tests, the demo and benchmarks.
//
// A [CA] plays the TPM vendor: it manufactures devices, each with its own
// endorsement keys and certificates. A [State] is a device that is switched
// off, a [TPM] one that runs. In a test, [Start] does all of it and reports,
// when the test ends, every object or session that was left in the TPM.
//
// It never touches the machine's own TPM, swtpm configuration or
// swtpm-localca, and production code never imports it. A missing swtpm is an
// error with the line that installs it, never a skipped test.
package tpmsim
