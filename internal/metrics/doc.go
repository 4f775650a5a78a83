// SPDX-License-Identifier: Apache-2.0

// Package metrics keeps the figures of a running agent for Prometheus and shows
// them: as a file for node_exporter's textfile collector, and on a listener on
// this host's loopback.
//
// A [Metrics] hears of renewals as an [agent.Observer]. Its labels are words of
// ours and names of the configuration, never what a server said; it holds no
// secret, and nothing it does can make a renewal fail. It never writes through a
// link and never listens where another host can ask.
package metrics
