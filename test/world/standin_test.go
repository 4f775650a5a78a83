// SPDX-License-Identifier: Apache-2.0

package world_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// TestStandInReadsAsItsUser: a key that only root can read, and a drop-in that
// is no TOML, stop the stand-in as they stop the Rust agent.
func TestStandInReadsAsItsUser(t *testing.T) {
	ctx, w := newWorld(t)
	auth := w.Host(world.Auth)
	if err := w.InstallKeylime(ctx, auth, world.Agent); err != nil {
		t.Fatal(err)
	}
	command := "cd /var/lib/keylime && mkdir cv_ca && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes" +
		" -subj /CN=x -keyout server-private.pem -out server-cert.crt && cp server-cert.crt cv_ca/cacert.crt && chmod 0600 server-private.pem"
	if _, err := auth.Must(ctx, "sh", "-c", command); err != nil {
		t.Fatal(err)
	}
	wantStandInError(ctx, t, auth, "permission denied")
	if _, err := auth.Must(ctx, "chown", "keylime", "/var/lib/keylime/server-private.pem"); err != nil {
		t.Fatal(err)
	}
	process, err := auth.Start("/var/log/keylime/agent.log", "/usr/bin/keylime_agent")
	if err != nil {
		t.Fatal(err)
	}
	if err := process.AwaitPort(ctx, net.JoinHostPort(world.AuthIP, "9002")); err != nil {
		t.Fatal(err)
	}
	if err := process.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := auth.WriteFile("/etc/keylime/agent.conf.d/.50-omen.conf.tmp", []byte("[agent\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantStandInError(ctx, t, auth, ".50-omen.conf.tmp")
}

func wantStandInError(ctx context.Context, t *testing.T, h *world.Host, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	result, err := h.Run(ctx, "/usr/bin/keylime_agent")
	if err != nil {
		t.Fatal(err)
	}
	if result.Code != 1 || !strings.Contains(result.Stderr, want) || !strings.Contains(result.Stderr, "stands in") {
		t.Errorf("the stand-in ended with %d, without %q:\n%s", result.Code, want, result.Stderr)
	}
}
