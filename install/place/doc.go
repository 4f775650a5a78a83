// SPDX-License-Identifier: Apache-2.0

// Package place keeps the one path that services read a set through. It is a link of
// ours ([Place.Link]), or a folder that people filled: [Place.TakeOver] exchanges such
// a folder for the link in one step where the file system can, [Place.PutBack] the link
// for the folder. What has been copied elsewhere is compared before it is removed.
//
// The package never decides what is copied or current, never follows the link, and
// never removes a file that is not in the copy it was given.
package place
