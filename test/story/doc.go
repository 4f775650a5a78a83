// SPDX-License-Identifier: Apache-2.0

// Package story is what Omen is for, played from beginning to end in a world
// of test/world: two hosts get from their TPMs to certificates that Keylime
// serves, get new ones, and those that must not get any do not.
//
// [Steps] is the whole story as a table. The demo plays all of it; a test may
// play a part of it and go on by itself. A step returns one sentence about
// what it saw, or the first thing that was not as it should be. It judges by
// what the programs did (files, exit codes, what is served) and never looks
// into them.
package story
