// SPDX-License-Identifier: Apache-2.0

// Package debian is a Debian with omen-agent and Keylime's agent installed, for tests
// that boot one: how its root is laid, and what it is asked while it runs, in whatever
// box that is ([Machine]).
//
// It boots nothing itself, and never touches what is outside the root.
package debian
