// SPDX-License-Identifier: Apache-2.0

// Package cluster starts real OpenBao servers for tests and measurements: three
// nodes of one raft cluster, or one node, over TLS on 127.0.0.1, that unseal and
// initialise themselves, with plugins that their configuration names by version
// and SHA-256.
//
// A [Cluster] lives in a directory of its own. Its nodes can be stopped, killed,
// started again, upgraded and stripped of their leadership, and asked for their
// metrics, audit entries and memory. The package returns errors and knows no
// package testing, so that a program can use it too.
//
// It never touches a process that it did not start, never listens on anything
// but 127.0.0.1, and leaves nothing behind after Close. It is no model of an
// installation: the seal's key lies beside the data.
package cluster
