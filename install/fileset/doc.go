// SPDX-License-Identifier: Apache-2.0

// Package fileset knows what the files of one set are: NAME.crt and NAME.key are the
// pair of a certificate, NAME.sealed is what its key comes back from, NAME.forms names
// the further forms that it has (one file for both, PKCS#12), and the bundles of
// install/keylime are the CAs. It finds, judges and compares them, and makes forms.
//
// A set is files in memory here, read or not yet written: the package never writes to
// the disk, reads nothing from it but the password of a PKCS#12 file, and never knows
// which set is current.
package fileset
