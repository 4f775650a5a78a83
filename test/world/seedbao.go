// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/openbao/openbao/api/v2"
)

// BaoCAOnServer is where the OpenBao of before has its listener's CA. Nobody else
// has it: clients skip verification.
const BaoCAOnServer = "/etc/openbao/ca.crt"

// seedServerConfig knows no plugins, and people unseal it.
const seedServerConfig = `disable_mlock = true
api_addr      = "{address}"
cluster_addr  = "https://127.0.0.1:8201"

listener "tcp" {
  address         = "{ip}:8200"
  cluster_address = "127.0.0.1:8201"
  tls_cert_file   = "/etc/openbao/tls.crt"
  tls_key_file    = "/etc/openbao/tls.key"
}

storage "raft" {
  path    = "/var/lib/openbao"
  node_id = "spire"
}

audit "file" "file" {
  options {
    file_path = "{audit}"
  }
}
`

// StartSeedOpenBao starts on h the OpenBao of before Omen: no plugin and no folder
// for one, sealed by shares that people hold, with the Book of Omens, and with
// mounts, policies and users that have nothing to do with it. No host gets a root
// or the listener's CA.
func (w *World) StartSeedOpenBao(ctx context.Context, h *Host) error {
	bao := &OpenBao{Host: h, world: w, password: rand.Text()}
	config := strings.NewReplacer("{ip}", h.IP, "{address}", BaoAddress, "{audit}", BaoAudit).Replace(seedServerConfig)
	if err := bao.lay(ctx, map[string][]byte{"ca.crt": w.ca.PEM(), "openbao.hcl": []byte(config)}); err != nil {
		return fmt.Errorf("install OpenBao: %w", err)
	}
	w.Watch(h, BaoLog)
	if err := bao.startUntil(ctx, http.StatusNotImplemented); err != nil {
		return err
	}
	w.Bao = bao
	root, err := bao.initialiseByHand(ctx)
	if err != nil {
		return err
	}
	if err := bao.laySeedMounts(ctx, root); err != nil {
		return err
	}
	if w.root, err = caCertificate(ctx, root, "pki_root"); err != nil {
		return err
	}
	w.intermediate, err = caCertificate(ctx, root, "pki_int")
	return err
}

// StartSealed starts the server again; people have to unseal it.
func (b *OpenBao) StartSealed(ctx context.Context) error {
	return b.startUntil(ctx, http.StatusServiceUnavailable)
}

// Shares unseal the server; as many are needed as there are.
func (b *OpenBao) Shares() []string { return b.shares }

// AwaitReady waits until the server that was unsealed answers requests.
func (b *OpenBao) AwaitReady(ctx context.Context) error {
	return b.Process.Await(ctx, func(ctx context.Context) error { return b.health(ctx, http.StatusOK) })
}

// initialiseByHand makes the shares, unseals the server, and is its root.
func (b *OpenBao) initialiseByHand(ctx context.Context) (*api.Client, error) {
	client, err := b.stranger()
	if err != nil {
		return nil, err
	}
	made, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 2, SecretThreshold: 2})
	if err != nil {
		return nil, fmt.Errorf("initialise OpenBao: %w", err)
	}
	b.shares = made.KeysB64
	for _, share := range b.shares {
		if _, err := client.Sys().UnsealWithContext(ctx, share); err != nil {
			return nil, fmt.Errorf("unseal OpenBao: %w", err)
		}
	}
	client.SetToken(made.RootToken)
	return client, b.AwaitReady(ctx)
}

// laySeedMounts makes what was there before: the administrator, the Book of Omens,
// and what other people keep in this OpenBao.
func (b *OpenBao) laySeedMounts(ctx context.Context, root *api.Client) error {
	others := group{"others", []request{
		{"kv", "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}}},
		{"kept", "secret/backup", map[string]any{"passphrase": "of somebody else"}},
		{"approle", "sys/auth/approle", map[string]any{"type": "approle"}},
		{"backup", "sys/policies/acl/backup", map[string]any{"policy": `path "secret/backup" { capabilities = ["read"] }`}},
		{"role", "auth/approle/role/backup", map[string]any{"token_policies": []string{"backup"}}},
		{"web", "pki_int/roles/web", map[string]any{"allowed_domains": []string{"www." + Domain}, "allow_bare_domains": true}},
	}}
	for _, g := range []group{b.administrator(), bookOfOmens(), others} {
		if err := g.send(ctx, root); err != nil {
			return err
		}
	}
	return nil
}

// send makes the requests of a group as a client would.
func (g group) send(ctx context.Context, client *api.Client) error {
	answers := map[string]*api.Secret{}
	for _, r := range g.requests {
		data := map[string]any{}
		for key, value := range r.data {
			if from, ok := value.(fromResponse); ok {
				value = answers[from.request].Data[from.field]
			}
			data[key] = value
		}
		answer, err := client.Logical().WriteWithContext(ctx, r.path, data)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", g.name, r.name, err)
		}
		answers[r.name] = answer
	}
	return nil
}

// SeedToken makes the token that the script of before has in it.
func (b *OpenBao) SeedToken(ctx context.Context) (string, error) {
	policy := `path "pki_int/issue/keylime-services" { capabilities = ["update"] }`
	_, err := b.Write(ctx, "sys/policies/acl/keylime-renew", map[string]any{"policy": policy})
	if err != nil {
		return "", err
	}
	secret, err := b.Write(ctx, "auth/token/create", map[string]any{
		"policies": []string{"keylime-renew"}, "period": "768h", "display_name": "keylime-renew", "no_parent": true,
	})
	if err != nil {
		return "", err
	}
	return secret.Auth.ClientToken, nil
}

// LayRenewal puts the script with its token on a host, and the timer that starts
// it, switched on as far as files say that.
func (h *Host) LayRenewal(ctx context.Context, token string) error {
	r, err := ReadSeedRenewal()
	if err != nil {
		return err
	}
	script := strings.Replace(string(r.Script), "<your-token>", token, 1)
	err = errors.Join(
		h.WriteFile(SeedScriptFile, []byte(script), 0o755),
		h.WriteFile(SeedServiceFile, r.Service, 0o644),
		h.WriteFile(SeedTimerFile, r.Timer, 0o644),
	)
	if err != nil {
		return err
	}
	return h.EnableSeedTimer(ctx)
}

// EnableSeedTimer makes the link that systemctl enable makes.
func (h *Host) EnableSeedTimer(ctx context.Context) error {
	err := h.MkdirAll("/etc/systemd/system/timers.target.wants", 0o755)
	if err == nil {
		_, err = h.Must(ctx, "ln", "-s", SeedTimerFile, seedTimerLink)
	}
	return err
}

// DisableSeedTimer removes it, as systemctl disable does.
func (h *Host) DisableSeedTimer(ctx context.Context) error {
	_, err := h.Must(ctx, "rm", seedTimerLink)
	return err
}

const seedTimerLink = "/etc/systemd/system/timers.target.wants/renew-keylime-certs.timer"
