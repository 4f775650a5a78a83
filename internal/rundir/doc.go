// SPDX-License-Identifier: Apache-2.0

// Package rundir opens the folders in which root makes something for other programs
// that lasts no longer than the machine runs: a token, a socket.
//
// Such a folder is root's, and nobody else may write in it. It is made when it is
// missing, one level, for others to pass and not to list. The package never makes a
// folder that is there another's, and never opens one that others can change.
package rundir
