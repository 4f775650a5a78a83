// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/test/world"
)

// client speaks to OpenBao with this token, "" for none.
func (l *lab) client(t *testing.T, token string) *api.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(check(l.Spire.ReadFile(world.BaoCAFile))(t))
	config := api.DefaultConfig()
	must(t, config.Error)
	// By address: this program has the machine's /etc/hosts.
	config.Address = "https://" + world.SpireIP + ":8200"
	config.HttpClient = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}},
	}
	config.MaxRetries = 0
	client := check(api.NewClient(config))(t)
	client.SetToken(token)
	return client
}

// login proves a host by its own TPM, as omen-agent does, and gives the token.
func (l *lab) login(ctx context.Context, t *testing.T, h *world.Host) string {
	t.Helper()
	prover := check(host.Open(ctx, host.Config{Device: h.TPM.Device(), EventLog: host.NoEventLog}))(t)
	defer func() { must(t, prover.Close()) }()
	client := l.client(t, "")
	request := check(prover.Request(ctx, world.AgentRole))(t)
	message := map[string]any{
		"v": request.V, "role": request.Role, "ek_certificate": request.EKCertificate, "ak_public": request.AKPublic,
	}
	var challenge attest.Challenge
	decode(t, check(client.Logical().WriteWithContext(ctx, "auth/tpm/challenge", message))(t).Data, &challenge)
	proof := check(prover.Login(ctx, host.Claim{Role: world.AgentRole, Audience: world.BaoAudience}, &challenge))(t)
	answer := map[string]any{}
	decode(t, proof, &answer)
	secret := check(client.Logical().WriteWithContext(ctx, "auth/tpm/login", answer))(t)
	if got := secret.Auth.Metadata["host"]; got != h.Name {
		t.Fatalf("%s logged in as %s", h.Name, got)
	}
	return secret.Auth.ClientToken
}
