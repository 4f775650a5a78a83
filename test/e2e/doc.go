// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests that play the whole way with real parts: the
// programs of bin/ as a person runs them, on hosts of test/world with software
// TPMs, a real OpenBao with the real plugin, and a real Keylime. Its tests
// judge by what the programs leave behind: exit codes, words, files, what is
// served, who may connect.
//
// Most tests share one world and have hosts of their own in it; see common in
// lab_test.go. The package itself is empty. It never looks into a program, never
// reaches a network but the world's, and never waits for time to pass, only for
// a condition.
package e2e
