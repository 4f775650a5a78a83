// SPDX-License-Identifier: Apache-2.0

// Command bench measures Omen with real parts and writes RESULTS.md for people
// and results.json, flat name to number. A ratio is the median of pairs that were
// taken in turn in one run; an absolute figure belongs to the machine that
// RESULTS.md names.
//
// Each group of figures is a package: verification, logins, herd; the agent is
// measured here. null is a plugin to compare with, load makes callers, proof
// makes the input.
//
// It never compares with a number that was measured elsewhere.
package main
