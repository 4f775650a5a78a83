// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"funlab.casa/omen/test/world"
)

// TalkAsTenant has Keylime's own client ask verifier and registrar, each of
// which gives lists to an administrator's client certificate only.
func TalkAsTenant(ctx context.Context, s *Story) (string, error) {
	for _, command := range []string{"cvlist", "reglist"} {
		result, err := s.Spire.KeylimeTenant(ctx, "-c", command)
		if err != nil {
			return "", err
		}
		if err := wantList(result.Stdout); err != nil {
			return "", fmt.Errorf("keylime_tenant -c %s: %w:\n%s%s", command, err, result.Stdout, result.Stderr)
		}
	}
	return "cvlist and reglist answered, with tenant.crt", nil
}

// wantList looks for the one line of JSON that the tenant prints.
func wantList(output string) error {
	for line := range strings.Lines(output) {
		var answer struct {
			UUIDs []string `json:"uuids"`
		}
		if json.Unmarshal([]byte(line), &answer) == nil && answer.UUIDs != nil {
			return nil
		}
	}
	return errors.New("no list of agents")
}

// ReachAgent asks the agent's port with the certificate with which the
// verifier asks.
func ReachAgent(ctx context.Context, s *Story) (string, error) {
	client, err := s.Spire.Pair("verifier-client")
	if err != nil {
		return "", err
	}
	status, body, err := s.World.AsClient(ctx, client, "https://"+world.AuthIP+":9002/v2.6/agent/info")
	if err != nil {
		return "", err
	}
	if status != http.StatusOK || !strings.Contains(string(body), world.AgentUUID) {
		return "", fmt.Errorf("the agent's port says %d %s", status, body)
	}
	return "verifier-client.crt (clientAuth) gets /v2.6/agent/info", nil
}

// RefuseServerCertificate offers the agent's certificate as a client's: to
// Keylime every client certificate is an administrator's, so that it must be
// worth nothing.
func RefuseServerCertificate(ctx context.Context, s *Story) (string, error) {
	client, err := s.Auth.Pair("agent")
	if err != nil {
		return "", err
	}
	return s.refusedEverywhere(ctx, client)
}

// RefuseOthersClient offers a client certificate of the Book of Omens, as any other
// service of the site may have one: Keylime's administrators come from elsewhere.
func RefuseOthersClient(ctx context.Context, s *Story) (string, error) {
	client, err := s.World.Bao.ClientOfTheBook(ctx, "backup."+world.Domain)
	if err != nil {
		return "", err
	}
	return s.refusedEverywhere(ctx, client)
}

func (s *Story) refusedEverywhere(ctx context.Context, client tls.Certificate) (string, error) {
	var told []string
	for _, e := range s.Endpoints() {
		alert, err := s.World.Refuses(ctx, client, e.Address)
		if err != nil {
			return "", err
		}
		told = append(told, fmt.Sprintf("%s: %s", e.Name, strings.TrimPrefix(alert, "tls: ")))
	}
	return "refused in the handshake — " + strings.Join(told, ", "), nil
}
