// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// leadership is sys/leader, as far as it is needed here.
type leadership struct {
	Self    bool      `json:"is_self"`
	Address string    `json:"leader_address"`
	Since   time.Time `json:"active_time"` // only from the leader itself

	Committed uint64 `json:"raft_committed_index"`
	Applied   uint64 `json:"raft_applied_index"`
}

// Leader is the node that a running node names as the leader and that says of
// itself that it is active.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	leader, _, err := c.leader(ctx)
	return leader, err
}

func (c *Cluster) leader(ctx context.Context) (*Node, time.Time, error) {
	all := errors.New("no leader")
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		seen, err := n.leadership(ctx)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		since, err := c.active(ctx, seen.Address)
		if err == nil {
			return c.at(seen.Address), since, nil
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", n.Name, err))
	}
	return nil, time.Time{}, all
}

func (c *Cluster) at(address string) *Node {
	for _, n := range c.Nodes {
		if n.Address == address {
			return n
		}
	}
	return nil
}

// active asks the node at address whether it is the leader, and since when.
func (c *Cluster) active(ctx context.Context, address string) (time.Time, error) {
	n := c.at(address)
	if n == nil || !n.Running() {
		return time.Time{}, fmt.Errorf("names %q as the leader", address)
	}
	own, err := n.leadership(ctx)
	if err != nil {
		return time.Time{}, err
	}
	status, err := n.health(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if !own.Self || status != http.StatusOK {
		return time.Time{}, fmt.Errorf("%s answers %d and is no leader yet", n.Name, status)
	}
	return own.Since, nil
}

// WaitForLeader waits until there is a leader that became one after a moment;
// the zero time takes any.
func (c *Cluster) WaitForLeader(ctx context.Context, after time.Time) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	var leader *Node
	err := Await(ctx, func(ctx context.Context) error {
		node, since, err := c.leader(ctx)
		if err != nil {
			return err
		}
		if !after.IsZero() && !since.After(after) {
			return fmt.Errorf("%s leads since %s", node.Name, since)
		}
		leader = node
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for a leader: %w", err)
	}
	return leader, nil
}

// Standbys are the running nodes but the leader.
func (c *Cluster) Standbys(ctx context.Context) ([]*Node, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var rest []*Node
	for _, n := range c.Nodes {
		if n != leader && n.Running() {
			rest = append(rest, n)
		}
	}
	return rest, nil
}

// StepDown takes the leadership from the node and returns who has it next.
func (n *Node) StepDown(ctx context.Context) (*Node, error) {
	client, err := n.Admin()
	if err != nil {
		return nil, err
	}
	before := time.Now()
	if err := client.Sys().StepDownWithContext(ctx); err != nil {
		return nil, fmt.Errorf("step down %s: %w", n.Name, err)
	}
	return n.cluster.WaitForLeader(ctx, before)
}

func (n *Node) leadership(ctx context.Context) (leadership, error) {
	var answer leadership
	status, body, err := n.get(ctx, "/v1/sys/leader", "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: sys/leader says %d", n.Name, status)
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	return answer, err
}

// health is the status of sys/health: 200 the leader, 429 a standby, 501 and 503
// a node that is not initialised or sealed.
func (n *Node) health(ctx context.Context) (int, error) {
	status, _, err := n.get(ctx, "/v1/sys/health", "")
	return status, err
}

// get asks the node alone, briefly: one that hangs is as good as gone.
func (n *Node) get(ctx context.Context, path, token string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	response, err := n.cluster.web.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, 8<<20))
	return response.StatusCode, body, err
}

// Get is a GET request without a token, for the paths that want none.
func (n *Node) Get(ctx context.Context, path string) ([]byte, error) {
	status, body, err := n.get(ctx, path, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: %s says %d: %s", n.Name, path, status, body)
	}
	return body, err
}
