// SPDX-License-Identifier: Apache-2.0

// Package guide rehearses docs/guide.md, as a test: in a world of test/world that is
// as the operator's deployment by hand left it, every line of the page is typed at
// the prompt of the host it is for, in order. What is shown is held against the
// sample below it. Each step is done, undone by its way back, which must leave
// nothing of it, and done again.
//
// What the world does not have is in one place (substitutes), with what is done for it:
// systemd, ssh, a terminal at which shares are typed, and TPMs of a known vendor.
//
// It has no code of its own and nothing imports it.
package guide
