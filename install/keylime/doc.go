// SPDX-License-Identifier: Apache-2.0

// Package keylime knows Keylime: its components, their files, units, ports,
// settings and the drop-ins that point them at the installed certificates.
//
// What differs between components is data in one table (profiles.go). Drop-ins
// are written beside the configuration and renamed into conf.d, because Keylime
// parses every file there, temporary ones included; what stood there before is
// kept for the way back. Main files are never written.
// The package never opens a connection, never restarts anything and never
// touches a private key.
package keylime
