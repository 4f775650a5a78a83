// SPDX-License-Identifier: Apache-2.0

// Package markdown makes a manual page of one of the repository's pages, so that there
// is one text and not two. Tables become lists: of each row the first cell is the term.
//
// What it does not know how to say it refuses; it drops nothing but where links lead.
package markdown
