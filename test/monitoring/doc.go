// SPDX-License-Identifier: Apache-2.0

// Package monitoring has Prometheus' own promtool judge what this project ships
// for it: alert rules, their tests, the queries of the dashboard, and the text of
// the metrics. It has no code of its own, starts no server and asks no network;
// what a real renewal leaves is judged in test/e2e.
package monitoring
