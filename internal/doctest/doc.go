// SPDX-License-Identifier: Apache-2.0

// Package doctest holds the documentation against the code, as a test: the keys
// of the configuration, the rules, the names of tests, the exit codes, the
// versions of dependencies and the links between pages.
//
// It has no code of its own and nothing imports it. It never changes a page and
// makes no network call: an address outside this repository is not looked at.
package doctest
