// SPDX-License-Identifier: Apache-2.0

// Package crash proves that installing is all or nothing.
//
// Its program, once, performs one installation and nothing else. The tests run it
// under strace: killed before every file-system call, refused every one with
// every error of a bad disk, and replayed onto disks that lost power between any
// two calls and kept only what had been fsynced. After each the host has a whole
// set, old or new, and the next installation works and tidies up.
//
// The package never touches the machine's own files: the tests are in mount,
// network and process namespaces of their own, on a file system in memory. It is
// imported by its program and its tests only.
package crash
