// SPDX-License-Identifier: Apache-2.0

// Command release makes the files that operators of OpenBao download: the auth
// plugin for each architecture as binary and as archive, what is linked into it
// (CycloneDX), an OCI image for the server's `image` setting, and the checksums
// of them all.
//
// The same commit, version and Go release give the same bytes, on any machine
// and in any folder: times are those of the commit (or of SOURCE_DATE_EPOCH),
// lists are sorted, owners are root, and nothing is random.
//
// It never publishes or signs anything, never reads a key, and removes no file
// but those it would write.
package main
