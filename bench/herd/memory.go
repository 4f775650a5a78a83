// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/test/cluster"
)

// peak is the most memory that the plugin of any node has while do runs, in MiB.
func peak(ctx context.Context, c *cluster.Cluster, do func() error) (mib float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	found := make(chan float64, 1)
	go func() { found <- watch(ctx, c) }()
	err = do()
	stop()
	if mib = <-found; mib == 0 {
		err = errors.Join(err, errors.New("the plugin's process was not found"))
	}
	return mib, err
}

// watch looks four times a second until ctx is over, and once more.
func watch(ctx context.Context, c *cluster.Cluster) (most float64) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		most = max(most, memory(c))
		select {
		case <-ctx.Done():
			return max(most, memory(c))
		case <-tick.C:
		}
	}
}

// memory is that of the largest plugin.
func memory(c *cluster.Cluster) (most float64) {
	for _, node := range c.Nodes {
		processes, err := node.Plugins()
		if err != nil {
			continue // seen at the end, if it stays so
		}
		for _, p := range processes {
			if rss, err := p.RSS(); err == nil {
				most = max(most, float64(rss)/(1<<20))
			}
		}
	}
	return most
}
