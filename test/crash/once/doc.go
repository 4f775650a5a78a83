// SPDX-License-Identifier: Apache-2.0

// Command once performs the installation that the file in its argument orders,
// and ends; of several files, one after the other. All its file-system calls are made by its first thread, so
// that strace without -f sees and counts every one of them. Started under the
// name of a Keylime service it stands in for that service.
//
// It exits 1 with a message when the installation fails, and prints the words
// of package crash on the way. It is for tests only and never makes a key.
package main
