// SPDX-License-Identifier: Apache-2.0

// Package output is what the makers of files to ship have in common: the command line,
// the folder that files are written to, their checksums.
//
// It removes nothing but what a maker names, and asks nobody for anything but git for the
// time of a commit.
package output
