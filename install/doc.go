// SPDX-License-Identifier: Apache-2.0

// Package install puts issued certificates where Keylime reads them, makes its
// services read them, and takes everything back when they do not serve them.
//
// A set of files is a folder, a generation; the one rename of the link "current"
// switches keys, certificates and CA bundle together. Installer.Install writes
// and switches, Change.Reload restarts, Change.Probe asks what is served,
// Change.RollBack goes back to the last proven generation. Installer.Return does so
// later, Installer.Uninstall puts back what was found before the first one. A
// journal tells an installation that ended in the middle, a manifest in each
// generation what somebody else has changed.
// What can be refused is refused before anything is written: a certificate that
// does not fit its key, root or use, a missing user, an agent that is too old.
//
// What it stands on are packages of its own: keypair judges certificates with their
// keys, fileset knows what the files of a set are, generation keeps sets on the disk,
// place the one path that services read them through, record what is written down of
// an installation.
//
// The package never issues or requests a certificate, never opens a connection
// (its package probe does), never writes Keylime's main files unless it is told
// to (mode "edit"), never sends HUP
// and never removes what it has not first copied and compared.
package install
