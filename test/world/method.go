// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/test/authority"
)

// initialise is what the server makes besides the CAs: an administrator, the
// auth method and what it trusts, and each host's roles and policy.
func (b *OpenBao) initialise(names []HostNames) []group {
	var hosts []request
	for _, n := range names {
		hosts = append(hosts, hostRequests(n)...)
	}
	return []group{
		b.administrator(),
		{"hosts", hosts},
		{"tpm", []request{
			{"enable", "sys/auth/tpm", map[string]any{"type": "tpm"}},
			{"config", "auth/tpm/config", map[string]any{
				"virtual_roots":    string(authority.CertificatePEM(b.world.VendorRoot().Raw)),
				"ek_intermediates": string(authority.CertificatePEM(b.world.VendorIssuer().Raw)),
				"audiences":        []string{BaoAudience},
			}},
			{"role", "auth/tpm/role/" + AgentRole, map[string]any{
				"way_in": "allow-list", "ek_classes": "virtual", "pcr_bank": "sha256", "pcrs": []string{"0", "1", "2", "3", "4", "5", "6", "7"},
				"token_no_default_policy": true,
			}},
		}},
	}
}

// administrator is the user "omen", who can do everything.
func (b *OpenBao) administrator() group {
	admin := "path \"*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\", \"sudo\"]\n}\n"
	return group{"administrator", []request{
		{"policy", "sys/policies/acl/administrator", map[string]any{"policy": admin}},
		{"enable", "sys/auth/userpass", map[string]any{"type": "userpass"}},
		{"user", "auth/userpass/users/omen", map[string]any{"password": b.password, "token_policies": []string{"administrator"}}},
	}}
}

// httpClient trusts the listener's CA and nobody else, and follows nothing.
func (b *OpenBao) httpClient() *http.Client {
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: b.world.ca.Pool(), MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Admin is a client of the server, logged in as the administrator.
func (b *OpenBao) Admin(ctx context.Context) (*api.Client, error) {
	client, err := b.stranger()
	if err != nil {
		return nil, err
	}
	secret, err := client.Logical().WriteWithContext(ctx, "auth/userpass/login/omen", map[string]any{"password": b.password})
	if err != nil {
		return nil, fmt.Errorf("log in as administrator: %w", err)
	}
	client.SetToken(secret.Auth.ClientToken)
	return client, nil
}

// stranger is a client of the server without a token.
func (b *OpenBao) stranger() (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.HttpClient = b.url(), b.httpClient()
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.ClearToken()
	return client, nil
}

// Write is one call of the administrator.
func (b *OpenBao) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	client, err := b.Admin(ctx)
	if err != nil {
		return nil, err
	}
	return client.Logical().WriteWithContext(ctx, path, data)
}

// Identity is what a host says of its TPM (omen-agent identity).
type Identity struct {
	TPMID     string `json:"tpm_id"`
	PCRDigest string `json:"pcr_digest"`
}

// Identify asks the agent of the host who it is.
func (h *Host) Identify(ctx context.Context) (Identity, error) {
	result, err := h.Must(ctx, "/usr/bin/omen-agent", "--config", AgentConfig, "--output", "json", "identity")
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	if err := json.Unmarshal([]byte(result.Stdout), &id); err != nil {
		return id, fmt.Errorf("%s: read identity: %w", h.Name, err)
	}
	if id.TPMID == "" || id.PCRDigest == "" {
		return id, fmt.Errorf("%s: the identity has no tpm_id or no pcr_digest: %s", h.Name, result.Stdout)
	}
	return id, nil
}

// Enrol puts a host on the allow-list: this TPM, in this boot state, is the
// host of that name. Its names come from StartOpenBao or AllowNames.
func (b *OpenBao) Enrol(ctx context.Context, host string, id Identity) error {
	_, err := b.Write(ctx, "auth/tpm/host/"+host, map[string]any{
		"tpm_ids": []string{id.TPMID}, "roles": []string{AgentRole}, "pcr_digests": []string{id.PCRDigest},
	})
	if err != nil {
		return fmt.Errorf("enrol %s: %w", host, err)
	}
	return nil
}

// AllowNames writes the PKI roles and the policy of one more host.
func (b *OpenBao) AllowNames(ctx context.Context, names HostNames) error {
	for _, r := range hostRequests(names) {
		if _, err := b.Write(ctx, r.path, r.data); err != nil {
			return fmt.Errorf("allow the names of %s: %w", names.Host, err)
		}
	}
	return nil
}

// pinRoots gives every host the roots that its certificates must reach.
func (w *World) pinRoots(ctx context.Context) error {
	client, err := w.Bao.Admin(ctx)
	if err != nil {
		return err
	}
	if w.root, err = caCertificate(ctx, client, "pki_root"); err != nil {
		return err
	}
	if w.intermediate, err = caCertificate(ctx, client, "pki_int"); err != nil {
		return err
	}
	if w.clients, err = caCertificate(ctx, client, ClientsPath); err != nil {
		return err
	}
	for _, h := range w.hosts {
		if err := w.pinOn(h); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) pinOn(h *Host) error {
	return errors.Join(h.WriteFile(AnchorFile, w.root, 0o644), h.WriteFile(ClientsAnchorFile, w.clients, 0o644))
}

// ClientOfTheBook issues a client certificate of the Book of Omens, which has
// nothing to do with Keylime.
func (b *OpenBao) ClientOfTheBook(ctx context.Context, name string) (tls.Certificate, error) {
	role := roleData(HostNames{Client: []string{name}}, false)
	if _, err := b.Write(ctx, "pki_int/roles/other.client", role); err != nil {
		return tls.Certificate{}, err
	}
	secret, err := b.Write(ctx, "pki_int/issue/other.client", map[string]any{"common_name": name, "ttl": "1h"})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue a client certificate: %w", err)
	}
	var texts [2]string
	for i, field := range []string{"certificate", "private_key"} {
		texts[i], _ = secret.Data[field].(string)
	}
	return tls.X509KeyPair([]byte(texts[0]+"\n"+string(b.world.intermediate)), []byte(texts[1]))
}

func caCertificate(ctx context.Context, client *api.Client, mount string) ([]byte, error) {
	secret, err := client.Logical().ReadWithContext(ctx, mount+"/cert/ca")
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", mount, err)
	}
	text, ok := secret.Data["certificate"].(string)
	if !ok {
		return nil, fmt.Errorf("read the certificate of %s: none in the answer", mount)
	}
	return []byte(strings.TrimSpace(text) + "\n"), nil
}
