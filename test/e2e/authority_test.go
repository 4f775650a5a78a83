// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"

	"funlab.casa/omen/test/world"
)

// TestClientAuthority: to Keylime every certificate with clientAuth is an
// administrator's. Servers' certificates have none, and open no door.
func TestClientAuthority(t *testing.T) {
	ctx, l := shared(t)
	for _, server := range []struct {
		host *world.Host
		name string
	}{{l.Auth, "agent"}, {l.Spire, "verifier"}, {l.Spire, "registrar"}} {
		pair := check(server.host.Pair(server.name))(t)
		for _, e := range l.Endpoints() {
			t.Run(server.name+" at "+e.Name, func(t *testing.T) {
				t.Log(check(l.World.Refuses(ctx, pair, e.Address))(t))
			})
		}
	}
	stray := check(l.serverOfTheClientsCA(ctx))(t)
	for _, e := range l.Endpoints() {
		t.Run("server certificate of the clients' CA at "+e.Name, func(t *testing.T) {
			t.Log(check(l.World.Refuses(ctx, stray, e.Address))(t))
		})
	}
	for _, row := range []struct {
		client, at string
		status     int
	}{
		{"tenant", "https://" + world.SpireIP + ":8881/v2.6/agents/", http.StatusOK},
		{"tenant", "https://" + world.SpireIP + ":8891/v2.6/agents/", http.StatusOK},
		{"tenant", "https://" + world.AuthIP + ":9002/v2.6/agent/info", http.StatusOK},
		{"verifier-client", "https://" + world.AuthIP + ":9002/v2.6/agent/info", http.StatusOK},
	} {
		t.Run(row.client+" at "+row.at, func(t *testing.T) {
			status, body, err := l.World.AsClient(ctx, check(l.Spire.Pair(row.client))(t), row.at)
			must(t, err)
			if status != row.status {
				t.Errorf("status %d: %s", status, body)
			}
		})
	}
	for _, at := range []string{":8881/v2.6/agents/", ":8891/v2.6/agents/"} {
		status, body, err := l.World.AsClient(ctx, tls.Certificate{}, "https://"+world.SpireIP+at)
		if err == nil && status < 400 {
			t.Errorf("nobody at %s: status %d: %s", at, status, body)
		}
	}
}

// serverOfTheClientsCA is what a role that was written wrongly issues: the CA is the
// right one for a client, the usage is not.
func (l *lab) serverOfTheClientsCA(ctx context.Context) (tls.Certificate, error) {
	role := map[string]any{"allow_any_name": true, "server_flag": true, "client_flag": false, "key_type": "ec", "key_bits": 256}
	if _, err := l.World.Bao.Write(ctx, world.ClientsPath+"/roles/stray.server", role); err != nil {
		return tls.Certificate{}, err
	}
	answer, err := l.World.Bao.Write(ctx, world.ClientsPath+"/issue/stray.server", map[string]any{"common_name": "stray." + world.Domain, "ttl": "1h"})
	if err != nil {
		return tls.Certificate{}, err
	}
	certificate, _ := answer.Data["certificate"].(string)
	key, _ := answer.Data["private_key"].(string)
	return tls.X509KeyPair([]byte(certificate), []byte(key))
}
