// SPDX-License-Identifier: Apache-2.0

// Package svid is a workload: a program that gets its X.509-SVID by an unmodified
// go-spiffe and proves that it can use it. Tests start it as a process of some user, by
// starting themselves again: [Play] is the first call of their TestMain.
//
// It never looks at a file of the agent's, and knows no more of it than its socket.
package svid
