// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
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

// Closed asks a verifier or registrar without certificate for the list of agents.
// Both answer some questions to anybody, and this one they must refuse: ErrOpen
// means that they do not.
func Closed(ctx context.Context, t Target) error {
	client, err := NewClient(t, nil)
	if err != nil {
		return err
	}
	prefix, err := client.prefix(ctx)
	if err == nil {
		err = client.Results(ctx, prefix+"/agents/", nil)
	}
	alert, isAlert := alertOf(err)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %s/agents/: %w", t.Address, prefix, ErrOpen)
	case isRefusal(err) || isAlert && refusesClient(alert): // some versions ask everybody, in the handshake
		return nil
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
