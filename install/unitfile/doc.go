// SPDX-License-Identifier: Apache-2.0

// Package unitfile knows the form of systemd's unit files (systemd.syntax(7)), where they
// lie, and the names of our own units.
//
// It reads texts as systemd does: a line that is no setting takes nothing with it. The
// package never opens a file, never asks systemd, and never says what a unit does.
package unitfile
