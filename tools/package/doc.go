// SPDX-License-Identifier: Apache-2.0

// Command package makes the packages for hosts: omen-agent and the auth plugin of
// OpenBao as .deb and .rpm for each architecture, with units, generator, manual pages,
// completions and an example, and beside them what is linked into each program
// (CycloneDX) and the checksums of the packages.
//
// The same commit, version and Go release give the same bytes, on any machine and in
// any folder: times are those of the commit (or of SOURCE_DATE_EPOCH), lists are
// sorted, owners are root. Manual page and completions come from the agent itself.
//
// It never publishes or signs anything, never reads a key, and removes no file but
// those it would write.
package main
