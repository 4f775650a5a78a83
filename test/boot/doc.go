// SPDX-License-Identifier: Apache-2.0

// Package boot boots a machine with the packages installed, again and again: with
// OpenBao there and away, with certificates that are due, and without any. Its tests run
// with make test-long.
package boot
