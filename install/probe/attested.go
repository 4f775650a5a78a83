// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Attestation is what a verifier knows of an agent.
type Attestation struct {
	State    State  `json:"operational_state"`
	Status   string `json:"attestation_status"`
	Count    int    `json:"attestation_count"`
	Last     int64  `json:"last_successful_attestation"` // Unix seconds
	Interval string `json:"maximum_attestation_interval"`
	Event    string `json:"last_event_id"` // of the last failure; a later success leaves it
}

// State is a verifier's operational_state of an agent.
type State int

// The first and last state in which a verifier asks an agent, those two in which it
// has the answers it wants, and the one in which it has given up.
const (
	stateStart         State = 1
	stateGetQuote      State = 3
	stateProvideV      State = 5
	stateProvideVRetry State = 6
	stateFailed        State = 7
)

// stateNames are Keylime's words, in the order of the numbers.
var stateNames = [...]string{"Registered", "Start", "Saved", "Get Quote", "Get Quote (retry)", "Provide V",
	"Provide V (retry)", "Failed", "Terminated", "Invalid Quote", "Tenant Quote Failed"}

// String is the number and Keylime's word for it.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return strconv.Itoa(int(s))
	}
	return fmt.Sprintf("%d (%s)", int(s), stateNames[s])
}

const defaultMaxInterval = 10 * time.Second

// MaxInterval is how long two attestations may be apart.
func (a Attestation) MaxInterval() time.Duration {
	interval, err := time.ParseDuration(a.Interval)
	if err != nil || interval <= 0 {
		return defaultMaxInterval
	}
	return interval
}

// Healthy returns nil when the agent was attested at that time. attestation_status
// alone proves nothing: it stays PASS all through the retries.
func (a Attestation) Healthy(now time.Time) error {
	if a.State != stateGetQuote && a.State != stateProvideV {
		return fmt.Errorf("operational_state %s", a.State)
	}
	if age := now.Sub(time.Unix(a.Last, 0)); age > a.MaxInterval() {
		return fmt.Errorf("last successful attestation %s ago, allowed are %s", age.Round(time.Second), a.MaxInterval())
	}
	return nil
}

// Goes reports that the verifier asks the agent, or tries to.
func (a Attestation) Goes() bool { return a.State >= stateStart && a.State <= stateProvideVRetry }

// GivenUp reports that the verifier could not reach the agent, and asks it no more,
// until it is reactivated. An agent whose quote was refused is not given up but
// failed, and stays so.
func (a Attestation) GivenUp() bool {
	return a.State == stateFailed && strings.HasPrefix(a.Event, "internal.verifier.not_reachable")
}

// WorkedAt reports that the agent was still attested at that time, as far as the
// time of its last attestation says: what went wrong came later.
func (a Attestation) WorkedAt(at time.Time) bool {
	return !time.Unix(a.Last, 0).Add(a.MaxInterval()).Before(at)
}

// uuid is what Keylime accepts as an agent's name.
var uuid = regexp.MustCompile(`^[A-Za-z0-9._-]{1,80}$`)

// agentPath is the path of an agent at a verifier or registrar.
func (c *Client) agentPath(ctx context.Context, agent string) (string, error) {
	if !uuid.MatchString(agent) || strings.Trim(agent, ".") == "" {
		return "", fmt.Errorf("agent %q: not an agent's UUID", agent)
	}
	prefix, err := c.prefix(ctx)
	return prefix + "/agents/" + agent, err
}

// AgentState asks a verifier for one of its agents.
func (c *Client) AgentState(ctx context.Context, agent string) (state Attestation, err error) {
	path, err := c.agentPath(ctx, agent)
	if err == nil {
		err = c.Results(ctx, path, &state)
	}
	return state, err
}

// Reactivate has a verifier ask an agent again that it has given up. One that is
// not given up must not be reactivated: the verifier would ask it twice from then
// on.
func (c *Client) Reactivate(ctx context.Context, agent string) error {
	path, err := c.agentPath(ctx, agent)
	if err != nil {
		return err
	}
	return c.target.explain(ask(ctx, c.http, http.MethodPut, "https://"+c.target.Address+path+"/reactivate", nil))
}

// Registration is what a registrar knows of an agent.
type Registration struct {
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	Certificate string `json:"mtls_cert"` // PEM, or "disabled"
}

// Registration asks a registrar for an agent.
func (c *Client) Registration(ctx context.Context, agent string) (registration Registration, err error) {
	path, err := c.agentPath(ctx, agent)
	if err == nil {
		err = c.Results(ctx, path, &registration)
	}
	return registration, err
}

// Target is the agent's port, which must serve the registered certificate.
func (r Registration) Target(bundle []byte) (Target, error) {
	block, _ := pem.Decode([]byte(r.Certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return Target{}, errors.New("the registrar holds no certificate of the agent: it registered without mTLS")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Target{}, fmt.Errorf("certificate that the registrar holds: %w", err)
	}
	if net.ParseIP(r.IP) == nil || r.Port <= 0 || r.Port > 65535 {
		return Target{}, fmt.Errorf("the registrar holds the address %q, port %d", r.IP, r.Port)
	}
	return Target{Address: net.JoinHostPort(r.IP, strconv.Itoa(r.Port)), Leaf: leaf, Bundle: bundle}, nil
}
