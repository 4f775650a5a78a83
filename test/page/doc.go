// SPDX-License-Identifier: Apache-2.0

// Package page reads the pages of docs/ for tests that do what a page says: it
// takes a page apart into its blocks, and holds what a program answered against
// the sample that the page shows. A sample stands for its like: times, digests and
// serial numbers may be others, words may not.
//
// It runs nothing and never writes.
package page
