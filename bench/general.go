// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/test/world"
)

// reloads is how often the certificate of a program that reloads is renewed.
const reloads = 5

// handshakers shake hands with it meanwhile.
const handshakers = 4

const webAddress = world.SpireIP + ":8443"

// webTables are two certificates of profile general: nginx's, and one whose key lives
// in the TPM.
const webTables = `
[[certificate]]
name = "web"
profile = "general"
usage = "server"
common_name = "verifier.keylime.` + world.Domain + `"
ip = ["` + world.SpireIP + `"]
[certificate.files]
folder = "/etc/web/omen"
combined = "web.pem"
[certificate.service]
reload = ["/usr/sbin/nginx", "-c", "/etc/web/nginx.conf", "-e", "/etc/web/error.log", "-s", "reload"]
probe = "` + webAddress + `"

[[certificate]]
name = "resident"
profile = "general"
usage = "server"
common_name = "verifier.keylime.` + world.Domain + `"
key = "tpm"
loads_tss2 = true
[certificate.files]
folder = "/etc/web/resident"
`

const webServer = `worker_processes 2;
daemon off;
pid /etc/web/nginx.pid;
error_log /etc/web/error.log;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path /etc/web/tmp; proxy_temp_path /etc/web/tmp; fastcgi_temp_path /etc/web/tmp;
  uwsgi_temp_path /etc/web/tmp; scgi_temp_path /etc/web/tmp;
  server {
    listen ` + webAddress + ` ssl;
    ssl_certificate /etc/web/omen/web.pem;
    ssl_certificate_key /etc/web/omen/web.pem;
    location / { return 204; }
  }
}
`

// general measures what profile general promises: nginx refuses nobody while it gets
// new certificates, and what a key in the TPM costs the TPM, with the storage root
// where most machines have it.
func general(ctx context.Context, h *world.Host) (map[string]float64, error) {
	if _, err := h.TPM.Persist(tpm2.TPMRHOwner, 0x81000001, tpm2.ECCSRKTemplate); err != nil {
		return nil, err
	}
	if _, err := h.Must(ctx, "install", "-d", "/etc/web/tmp"); err != nil {
		return nil, err
	}
	if err := h.WriteFile("/etc/web/nginx.conf", []byte(webServer), 0o644); err != nil {
		return nil, err
	}
	config := h.AgentTOML(world.SpireCertificates()) + webTables
	if err := h.WriteFile(world.AgentConfig, []byte(config), 0o644); err != nil {
		return nil, err
	}
	f := map[string]float64{}
	for range 2 { // the first learns where the storage root is
		outcome, err := renewOne(ctx, h, "resident")
		if err != nil {
			return nil, err
		}
		f["tpm_commands_renewal_tpm"] = float64(commands(outcome))
	}
	refused, err := refusedByNginx(ctx, h)
	f["reload_handshakes_refused"] = float64(refused)
	return f, err
}

func renewOne(ctx context.Context, h *world.Host, certificate string) (*agent.Outcome, error) {
	r, err := h.Must(ctx, "/usr/bin/omen-agent", "--config", world.AgentConfig, "--output", "json", "renew", "--certificate", certificate)
	if err != nil {
		return nil, err
	}
	o := new(agent.Outcome)
	if err := json.Unmarshal([]byte(r.Stdout), o); err != nil {
		return nil, fmt.Errorf("what renew printed: %w", err)
	}
	return o, nil
}

func refusedByNginx(ctx context.Context, h *world.Host) (refused int64, err error) {
	if _, err := renewOne(ctx, h, "web"); err != nil { // nginx needs one to start
		return 0, err
	}
	nginx, err := h.Start("/etc/web/nginx.log", "/usr/sbin/nginx", "-c", "/etc/web/nginx.conf", "-e", "/etc/web/error.log")
	if err != nil {
		return 0, err
	}
	defer func() { _ = nginx.Stop(10 * time.Second) }() // the world ends with it
	if err := nginx.Await(ctx, handshake); err != nil {
		return 0, err
	}
	shaking, stop := context.WithCancel(ctx)
	defer stop()
	var count, wrong atomic.Int64
	var crowd sync.WaitGroup
	for range handshakers {
		crowd.Go(func() {
			for shaking.Err() == nil {
				if handshake(ctx) != nil {
					wrong.Add(1)
				}
				count.Add(1)
			}
		})
	}
	for range reloads {
		if _, err = renewOne(ctx, h, "web"); err != nil {
			break
		}
	}
	stop()
	crowd.Wait()
	if err == nil && count.Load() < 100 {
		err = fmt.Errorf("%d handshakes are too few to say anything", count.Load())
	}
	return wrong.Load(), err
}

// handshake tries one with nginx.
func handshake(ctx context.Context) error {
	connection, err := dial(ctx, webAddress, 10*time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}

// dial makes one handshake. Whose certificate it is does not matter: omen-agent's own
// probes look at that.
func dial(ctx context.Context, address string, limit time.Duration) (net.Conn, error) {
	dialing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}} //nolint:gosec // nothing is sent
	return dialer.DialContext(dialing, "tcp", address)
}
