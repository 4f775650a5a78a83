// SPDX-License-Identifier: Apache-2.0

// Package manual says in a manual page and in completions for bash, zsh and fish what
// a command line is, out of kong's model of it: what the program takes is what they
// tell, in the same words as --help.
//
// It returns text that is a function of its arguments. It never reads a file, the
// environment or the clock, and leaves out what is hidden.
package manual
