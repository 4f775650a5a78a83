// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"
)

// version is what may become part of a path.
var version = regexp.MustCompile(`^[0-9]{1,3}\.[0-9]{1,3}$`)

// Server asks a verifier or registrar: a handshake, /version, and with a client
// certificate the list of agents, which only an administrator may see.
func Server(ctx context.Context, t Target, own *tls.Certificate) error {
	client, err := NewClient(t, own)
	if err != nil {
		return err
	}
	prefix, err := client.prefix(ctx)
	if err != nil || own == nil {
		return err
	}
	err = client.Results(ctx, prefix+"/agents/", nil)
	if isRefusal(err) {
		return fmt.Errorf("%s refuses the client certificate of this host: %w", t.Address, err)
	}
	return err
}

// Agent asks an agent with a client certificate it must accept.
func Agent(ctx context.Context, t Target, own *tls.Certificate) error {
	client, err := NewClient(t, own)
	if err != nil {
		return err
	}
	_, err = client.Version(ctx)
	return err
}

func isRefusal(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Status == http.StatusForbidden || status.Status == http.StatusUnauthorized)
}

func (c *Client) prefix(ctx context.Context) (string, error) {
	versions, err := c.Version(ctx)
	if err != nil {
		return "", err
	}
	if !version.MatchString(versions.Current) {
		return "", fmt.Errorf("%s: no usable current_version in its answer", c.target.Address)
	}
	return "/v" + versions.Current, nil
}

// Attestation is what a verifier knows of an agent.
type Attestation struct {
	State    int    `json:"operational_state"`
	Status   string `json:"attestation_status"`
	Count    int    `json:"attestation_count"`
	Last     int64  `json:"last_successful_attestation"` // Unix seconds
	Interval string `json:"maximum_attestation_interval"`
}

// The states in which a verifier goes on asking an agent.
const (
	stateGetQuote      = 3
	stateProvideV      = 5
	defaultMaxInterval = 10 * time.Second
)

// uuid is what Keylime accepts as an agent's name.
var uuid = regexp.MustCompile(`^[A-Za-z0-9._-]{1,80}$`)

// AgentState asks a verifier for one of its agents.
func (c *Client) AgentState(ctx context.Context, agent string) (Attestation, error) {
	var state Attestation
	if !uuid.MatchString(agent) {
		return state, fmt.Errorf("agent %q: not an agent's UUID", agent)
	}
	prefix, err := c.prefix(ctx)
	if err != nil {
		return state, err
	}
	err = c.Results(ctx, prefix+"/agents/"+agent, &state)
	return state, err
}

// Healthy returns nil when the agent is attested now. attestation_status alone
// proves nothing: it stays PASS all through the retries.
func (a Attestation) Healthy(now time.Time) error {
	if a.State != stateGetQuote && a.State != stateProvideV {
		return fmt.Errorf("operational_state %d", a.State)
	}
	interval, err := time.ParseDuration(a.Interval)
	if err != nil || interval <= 0 {
		interval = defaultMaxInterval
	}
	if age := now.Sub(time.Unix(a.Last, 0)); age > interval {
		return fmt.Errorf("last successful attestation %s ago, allowed are %s", age.Round(time.Second), interval)
	}
	return nil
}
