// SPDX-License-Identifier: Apache-2.0

// Package bao is OpenBao as the agent needs it: the client library behind five
// calls and one error type.
//
// [New] takes the addresses of a cluster and the CA to trust. Challenge and
// Sign pass over the addresses until one answers; Login speaks once, to the
// node that made the challenge; OpenTicket opens what brings an enrolment ticket;
// Health asks every node how it is. An address that failed is left alone for a
// second, by all calls. Every failure
// is an [*Error] that says what it was, whether trying again can help and what
// a person can do about it.
//
// The package never skips or weakens the verification of a server, follows no
// redirect, obeys no environment variable, uses no proxy, and writes nothing to
// disk. A [Token] travels in the header of Sign and
// OpenTicket and is printed nowhere.
package bao
