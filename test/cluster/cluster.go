// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/test/authority"
)

// Config says what to start. Its zero value is three nodes without plugins.
type Config struct {
	Bao     string   // the server's binary; "" asks FindBao
	Parent  string   // directory to make the cluster's own in; "" is the system's for temporary files
	Nodes   int      // 1 or 3; 0 is 3
	Plugins []Plugin // declared in the configuration of each node
	// Initialise, which may be nil, says what the first node makes at its first
	// start, after the administrator; it is told the addresses of all nodes.
	Initialise func(addresses []string) []Group
	LogLevel   string // of the servers; "" is info
	// Multiplier scales raft's time-outs: a leader is missed after so many seconds,
	// up to twice. 0 is OpenBao's own 5; below 2, a busy machine loses its leader
	// for no reason.
	Multiplier int
}

// A Cluster is a set of servers that share their data. Nodes are its members,
// started or not; their order is that of their names.
type Cluster struct {
	Nodes  []*Node
	CAFile string // PEM: who vouches for the listeners

	config   Config
	dir      string
	ca       *authority.Authority
	web      *http.Client
	password string // of the administrator
	token    string // the administrator's, once there is one
}

// readyIn bounds the start of a node or of the whole cluster: a restart of three
// nodes on a busy machine takes about 25 seconds.
const readyIn = 90 * time.Second

// Start makes a cluster and returns when a leader and every standby answer
// requests. After an error nothing is left of it.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c, err := prepare(config)
	if err != nil {
		return nil, fmt.Errorf("prepare cluster: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start cluster: %w", err), c.Close())
	}
	return c, nil
}

func prepare(config Config) (*Cluster, error) {
	if config.Nodes == 0 {
		config.Nodes = 3
	}
	if config.Nodes != 1 && config.Nodes != 3 {
		return nil, fmt.Errorf("a cluster of %d nodes: want 1 or 3", config.Nodes)
	}
	if config.Bao == "" {
		found, err := FindBao()
		if err != nil {
			return nil, err
		}
		config.Bao = found
	}
	dir, err := os.MkdirTemp(config.Parent, "omen-cluster-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, CAFile: filepath.Join(dir, "ca.pem"), password: rand.Text()}
	// OpenBao takes no plugin directory with a symbolic link in its path.
	if c.dir, err = filepath.EvalSymlinks(dir); err == nil {
		err = c.furnish()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// furnish makes the files that all nodes share, and each node's own.
func (c *Cluster) furnish() (err error) {
	if c.ca, err = authority.New("cluster CA"); err != nil {
		return err
	}
	c.web = webClient(c.ca)
	seal := make([]byte, 32)
	_, _ = rand.Read(seal)
	err = errors.Join(
		os.WriteFile(c.CAFile, c.ca.PEM(), 0o600),
		os.WriteFile(filepath.Join(c.dir, "seal.key"), seal, 0o600),
	)
	if err != nil {
		return err
	}
	ports, err := freePorts(2 * c.config.Nodes)
	if err != nil {
		return err
	}
	for i := range c.config.Nodes {
		c.Nodes = append(c.Nodes, newNode(c, i, ports[2*i], ports[2*i+1]))
	}
	for _, n := range c.Nodes {
		if err := n.furnish(); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) error {
	group, starting := errgroup.WithContext(ctx)
	for _, n := range c.Nodes {
		group.Go(func() error { return n.Start(starting) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.logIn(ctx); err != nil {
		return err
	}
	return c.awaitVoters(ctx)
}

// awaitVoters waits until every node can become the leader: a new one is watched
// for a while before it may vote.
func (c *Cluster) awaitVoters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	return Await(ctx, func(ctx context.Context) error {
		admin, err := c.Nodes[0].Admin()
		if err != nil {
			return err
		}
		state, err := admin.Sys().RaftAutopilotStateWithContext(ctx)
		if err == nil && len(state.Voters) != len(c.Nodes) {
			err = fmt.Errorf("%d of %d nodes vote", len(state.Voters), len(c.Nodes))
		}
		return err
	})
}

// Addresses are the nodes' addresses, https://127.0.0.1:port, in their order.
func (c *Cluster) Addresses() []string {
	all := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		all[i] = n.Address
	}
	return all
}

// Close ends every server and plugin, and removes the cluster's directory.
func (c *Cluster) Close() error {
	var all error
	for _, n := range c.Nodes {
		all = errors.Join(all, n.Kill())
	}
	c.web.CloseIdleConnections()
	return errors.Join(all, os.RemoveAll(c.dir))
}

// Await asks every 20 ms until ask returns nil or ctx is done; the error is then
// the last answer.
func Await(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-tick.C:
		}
	}
}
