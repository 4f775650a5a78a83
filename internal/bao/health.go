// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// Health is how one node says it is; for hints, never for decisions.
type Health struct {
	Node        Node
	Initialized bool
	Sealed      bool
	Standby     bool
	Version     string
	ClockOffset time.Duration // server's clock minus this host's, to about a second
	Err         *Error        // the node could not be asked: the rest is zero
}

// Health asks every node once, all at the same time, for at most 5 seconds.
// The answers are in the order of Nodes.
func (c *Client) Health(ctx context.Context) []Health {
	ctx, cancel := context.WithTimeout(ctx, min(c.timing.attempt, 5*time.Second))
	defer cancel()
	all := make([]Health, len(c.nodes))
	var group errgroup.Group
	for i, node := range c.nodes {
		group.Go(func() error {
			all[i] = c.health(ctx, node)
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	return all
}

func (c *Client) health(ctx context.Context, node Node) Health {
	call := c.call(opHealth, node)
	got, err := call.view(Token{}).Sys().HealthWithContext(ctx)
	if err != nil {
		return Health{Node: node, Err: call.failure(err)}
	}
	return Health{
		Node:        node,
		Initialized: got.Initialized,
		Sealed:      got.Sealed,
		Standby:     got.Standby,
		Version:     clean(got.Version),
		ClockOffset: time.Unix(got.ServerTimeUTC, 0).Sub(time.Now().Truncate(time.Second)),
	}
}
