// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/test/cluster"
)

// peak is the most memory that the plugin of a node has while do runs, in MiB.
func peak(ctx context.Context, node *cluster.Node, do func() error) (mib float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	found := make(chan float64, 1)
	go func() { found <- watch(ctx, node) }()
	err = do()
	stop()
	if mib = <-found; mib == 0 {
		err = errors.Join(err, errors.New("the plugin's process was not found"))
	}
	return mib, err
}

// watch looks four times a second until ctx is over, and once more.
func watch(ctx context.Context, node *cluster.Node) (most float64) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		most = max(most, memory(node))
		select {
		case <-ctx.Done():
			return max(most, memory(node))
		case <-tick.C:
		}
	}
}

func memory(node *cluster.Node) float64 {
	processes, err := node.Plugins()
	if err != nil || len(processes) != 1 {
		return 0
	}
	rss, err := processes[0].RSS()
	if err != nil {
		return 0
	}
	return float64(rss) / (1 << 20)
}
