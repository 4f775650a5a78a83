// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Metrics are the samples of sys/metrics: each by its name and labels as
// OpenBao writes them, such as vault_raft_apply or a_b{c="d"}.
type Metrics map[string]float64

// Metrics are the node's counters at this moment; gauges are up to 10 s old.
func (n *Node) Metrics(ctx context.Context) (Metrics, error) {
	text, err := n.Get(ctx, "/v1/sys/metrics?format=prometheus")
	if err != nil {
		return nil, err
	}
	all := Metrics{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ')
		if cut < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: metric %q: %w", n.Name, line, err)
		}
		all[line[:cut]] = value
	}
	return all, nil
}

// Sum adds up the samples of one name over all labels.
func (m Metrics) Sum(name string) float64 {
	var sum float64
	for key, value := range m {
		if base, _, _ := strings.Cut(key, "{"); base == name {
			sum += value
		}
	}
	return sum
}

// RaftApplies counts what the node, as the leader, has had the cluster write
// since its start.
func (n *Node) RaftApplies(ctx context.Context) (uint64, error) {
	m, err := n.Metrics(ctx)
	return uint64(m.Sum("vault_raft_apply")), err
}

// RaftIndex is the last entry of the raft log that the node has committed and
// applied; it grows with each write, and a little with each new leader.
func (n *Node) RaftIndex(ctx context.Context) (committed, applied uint64, err error) {
	l, err := n.leadership(ctx)
	return l.Committed, l.Applied, err
}
