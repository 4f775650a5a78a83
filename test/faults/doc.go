// SPDX-License-Identifier: Apache-2.0

// Package faults takes away, in the midst of every step, what a renewal needs: the
// network, OpenBao, the TPM, room on the disk. Its tests run the programs of bin/ on hosts
// of test/world and want the same each time: what was served is served, status names the
// step, and when the fault is over the agent goes on by itself and has left nothing.
//
// What lasts as long as omen-agent run waits between two attempts runs with make
// test-long; all of its hosts wait at the same time. The package itself is empty. It never
// looks into a program, and never reaches a network but the world's.
package faults
