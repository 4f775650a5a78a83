// SPDX-License-Identifier: Apache-2.0

// Package load has callers log in to an OpenBao as fast as it lets them and
// says how many get in a second. Two subjects are compared by slices taken in
// turn on the same server, so that whatever else the machine does falls on both.
//
// Callers keep their connection, each its own, as hosts of a fleet have their
// own; making a connection is not part of a login here.
package load
