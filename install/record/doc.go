// SPDX-License-Identifier: Apache-2.0

// Package record holds what is written down of an installation, and how: the
// [Journal] of one that is not proven yet, by which it can be taken back by whoever
// comes next, and what was [Found] on the host before the first one.
//
// A record is one small file of JSON that root alone can write. It is written in one
// step and durably, and refused when it is not ours, not whole, or says what no
// version of ours has written: a record is read by root, and must not lead anywhere.
//
// The package never acts on what a record says, and never holds a key: of
// configuration only what stood there before.
package record
