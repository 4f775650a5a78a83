// SPDX-License-Identifier: Apache-2.0

// Package daemon decides when a host renews: when it is due, when something has
// changed, and how long to wait after an attempt that failed. It tells systemd where it
// stands, and holds the services back at boot until they have something to start with.
//
// It never makes more than one attempt a minute, whatever the server answers and the
// clock shows. It decides nothing about trust, reads no answer of a server but by the
// kind of its error, and writes no file.
package daemon
