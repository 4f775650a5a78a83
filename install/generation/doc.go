// SPDX-License-Identifier: Apache-2.0

// Package generation keeps the sets of certificates on the disk. A set is a folder,
// gen-NNNNNN, that is written once and whole, and the one rename of the link "current"
// switches from one to another ([Store.SwitchTo]). In each a [Manifest] says what it
// was when it was written, and so what somebody else has changed since. The plain form
// of a sealed key is not in the folder but on a tmpfs, below [RunDir].
//
// The package never decides which set is to be current, is proven or may go; it never
// touches a service, a configuration or the link that services read through, and never
// writes into a set that is there but to put modes and owners right.
package generation
