// SPDX-License-Identifier: Apache-2.0

// Package world is a small data centre on one machine, for the demo and the
// end-to-end tests: hosts with their own files, users and processes, each with
// a software TPM, and on one of them a real OpenBao and a real Keylime.
//
// [Enter] moves the program into namespaces of its own, with a private network
// that owns the hosts' addresses; every [Host] then has its own mount, process
// and host name space, with overlays in memory over /etc, /usr/bin, /var/lib
// and /var/log and an empty /run. Real paths and default ports are used, and
// nothing of the machine is written. When the program ends, however it ends,
// the kernel ends every process of the world and drops its files.
//
// It never reaches a network but its own, never opens the machine's TPM, and
// its keys and passwords are made anew each time and worth nothing outside.
package world
