// SPDX-License-Identifier: Apache-2.0

// Package program compiles the programs of this repository as they are shipped, and
// says what is linked into them and under which licences.
//
// The same checkout, version and Go release give the same bytes, on any machine and in
// any folder. It never asks the network for anything but what go build asks, and writes
// nothing but the program.
package program
