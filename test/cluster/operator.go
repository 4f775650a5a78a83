// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// logIn logs the administrator in, for all nodes: the token is in the storage
// that they share.
func (c *Cluster) logIn(ctx context.Context) error {
	leader, err := c.WaitForLeader(ctx, time.Time{})
	if err != nil {
		return err
	}
	client, err := leader.Client()
	if err != nil {
		return err
	}
	secret, err := client.Logical().WriteWithContext(ctx, "auth/userpass/login/omen", map[string]any{"password": c.password})
	if err != nil {
		return fmt.Errorf("log in as administrator: %w", err)
	}
	c.token = secret.Auth.ClientToken
	return nil
}

// Client is a new client of this node without a token. It tries once and follows
// no redirect.
func (n *Node) Client() (*api.Client, error) {
	config := api.NewConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.HttpClient = n.Address, n.cluster.web
	config.DisableEnvironment, config.DisableRedirects, config.MaxRetries = true, true, 0
	return api.NewClient(config)
}

// Admin is a new client of this node that can do everything.
func (n *Node) Admin() (*api.Client, error) {
	client, err := n.Client()
	if err != nil {
		return nil, err
	}
	client.SetToken(n.cluster.token)
	return client, nil
}

// Write is one call of the administrator, by way of this node.
func (n *Node) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	client, err := n.Admin()
	if err != nil {
		return nil, err
	}
	secret, err := client.Logical().WriteWithContext(ctx, path, data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return secret, nil
}

// Delete is Write's counterpart.
func (n *Node) Delete(ctx context.Context, path string) error {
	client, err := n.Admin()
	if err != nil {
		return err
	}
	if _, err := client.Logical().DeleteWithContext(ctx, path); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	return nil
}
