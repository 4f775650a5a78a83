// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Where OpenBao is, for every client in the world.
const (
	BaoAddress  = "https://spire.funlab.casa:8200"
	BaoAudience = BaoAddress + "||auth/tpm"
	BaoLog      = "/var/log/openbao/openbao.log"
	BaoAudit    = "/var/log/openbao/audit.log"
	AnchorFile  = "/etc/omen-agent/book-of-omens-root.pem"
	AgentRole   = "keylime" // the role of the auth method in which agents log in
)

const (
	baoConfig  = "/etc/openbao/openbao.hcl"
	baoPlugins = "/usr/local/lib/openbao/plugins"
)

// An OpenBao is the server that runs on a host of the world.
type OpenBao struct {
	Host    *Host
	Process *Process

	world    *World
	password string   // of the administrator "omen", who can do everything
	shares   []string // that unseal it, where it does not do that itself
}

// StartOpenBao installs and starts OpenBao on h, over TLS, with raft storage
// and a static seal. On its first start it makes everything itself: the Book
// of Omens, the roles and policies of names, the administrator, and the auth
// method at auth/tpm. It returns when the server answers requests, and has
// given every host the root certificates it pins.
func (w *World) StartOpenBao(ctx context.Context, h *Host, names []HostNames) error {
	bao := &OpenBao{Host: h, world: w, password: rand.Text()}
	if err := bao.install(ctx, names); err != nil {
		return fmt.Errorf("install OpenBao: %w", err)
	}
	w.Watch(h, BaoLog)
	if err := bao.Start(ctx); err != nil {
		return err
	}
	w.Bao = bao
	return w.pinRoots(ctx)
}

// Start starts the server again after [OpenBao.Stop].
func (b *OpenBao) Start(ctx context.Context) error { return b.startUntil(ctx, http.StatusOK) }

// startUntil starts the server and waits until it says this of its health.
func (b *OpenBao) startUntil(ctx context.Context, health int) error {
	process, err := b.Host.Start(BaoLog, "setpriv", "--reuid", "openbao", "--regid", "openbao", "--init-groups",
		"--no-new-privs", "bao", "server", "-config", baoConfig)
	if err != nil {
		return err
	}
	b.Process = process
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return process.Await(ctx, func(ctx context.Context) error { return b.health(ctx, health) })
}

// Stop ends the server.
func (b *OpenBao) Stop() error {
	if err := b.Process.Stop(10 * time.Second); err != nil {
		return err
	}
	// What was started is nsenter, which does not wait: the server has its storage
	// until it is gone itself.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Await(ctx, func(ctx context.Context) error {
		left, err := b.Host.Run(ctx, "pgrep", "-x", "bao")
		if err == nil && left.Code == 0 {
			err = errors.New("the server runs still: " + left.Stdout)
		}
		return err
	})
}

// health wants this answer of sys/health: 200 is ready, 501 new, 503 sealed.
func (b *OpenBao) health(ctx context.Context, want int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url()+"/v1/sys/health", nil)
	if err != nil {
		return err
	}
	response, err := b.httpClient().Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("sys/health says %s", response.Status)
	}
	return nil
}

// url goes by address: the world's own processes have the machine's /etc/hosts.
func (b *OpenBao) url() string { return "https://" + b.Host.IP + ":8200" }

func (b *OpenBao) install(ctx context.Context, names []HostNames) error {
	digest, err := b.installPlugin(ctx)
	if err != nil {
		return err
	}
	seal := make([]byte, 32)
	_, _ = rand.Read(seal)
	return b.lay(ctx, map[string][]byte{"seal.key": seal, "openbao.hcl": []byte(b.config(digest, names))})
}

// lay makes the server's folders and writes its files, with a certificate for
// its listener.
func (b *OpenBao) lay(ctx context.Context, files map[string][]byte) error {
	user, err := b.Host.User("openbao")
	if err != nil {
		return err
	}
	for _, dir := range []string{"/etc/openbao", "/var/lib/openbao", "/var/log/openbao"} {
		if _, err := b.Host.Must(ctx, "install", "-d", "-m", "0700", "-o", "openbao", "-g", "openbao", dir); err != nil {
			return err
		}
	}
	files["tls.crt"], files["tls.key"], err = b.world.ca.ServerPair(b.Host.FQDN(), []string{b.Host.FQDN()}, []net.IP{net.ParseIP(b.Host.IP)})
	for name, content := range files {
		err = errors.Join(err, b.Host.WriteFileAs("/etc/openbao/"+name, content, 0o600, user.UID, user.GID))
	}
	return err
}

// installPlugin copies the plugin to where the server looks for it, and gives
// the SHA-256 that the server's configuration pins.
func (b *OpenBao) installPlugin(ctx context.Context) (digest string, err error) {
	source, err := b.world.Tools.Program(PluginName)
	if err != nil {
		return "", err
	}
	target := baoPlugins + "/" + PluginName
	if _, err := b.Host.Must(ctx, "install", "-D", "-m", "0755", source, target); err != nil {
		return "", err
	}
	content, err := b.Host.ReadFile(target)
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), err
}

func (b *OpenBao) config(digest string, names []HostNames) string {
	text := strings.NewReplacer("{ip}", b.Host.IP, "{address}", BaoAddress, "{audit}", BaoAudit,
		"{plugins}", baoPlugins, "{command}", PluginName, "{sha256}", digest, "{version}", PluginVersion).Replace(serverConfig)
	for _, g := range append([]group{bookOfOmens(), keylimeClients()}, b.initialise(names)...) {
		text += g.render()
	}
	return text
}

const serverConfig = `disable_mlock = true
api_addr      = "{address}"
cluster_addr  = "https://127.0.0.1:8201"
listener "tcp" {
  address         = "{ip}:8200"
  cluster_address = "127.0.0.1:8201"
  tls_cert_file   = "/etc/openbao/tls.crt"
  tls_key_file    = "/etc/openbao/tls.key"
  max_request_size = 3145728
}
storage "raft" {
  path    = "/var/lib/openbao"
  node_id = "spire"
}
seal "static" {
  current_key_id = "1"
  current_key    = "file:///etc/openbao/seal.key"
}
audit "file" "file" {
  options {
    file_path = "{audit}"
  }
}
plugin_directory     = "{plugins}"
plugin_auto_register = true
plugin "auth" "tpm" {
  command   = "{command}"
  version   = "{version}"
  sha256sum = "{sha256}"
}
`
