// SPDX-License-Identifier: Apache-2.0

// Package remedy joins to an error the one thing a person can do about it.
//
// Errors of the install packages say what is wrong; where the way out is known
// they carry it here, and the command line prints it behind "hint:".
// The package never prints, never logs and knows no error of its own.
package remedy
