// SPDX-License-Identifier: Apache-2.0

// Package keylime knows Keylime: its components, their files, units, ports,
// settings, the drop-ins or edits of main files that point them at the installed
// certificates, and what would override those.
//
// What differs between components is data in one table (profiles.go). Files are
// written beside the configuration and renamed into place, because Keylime parses
// every file in conf.d, temporary ones included; what stood there before is kept
// for the way back. Of a main file it never changes a byte but our settings', and
// it never writes one that it does not understand.
// The package never opens a connection, never restarts anything and never
// touches a private key.
package keylime
