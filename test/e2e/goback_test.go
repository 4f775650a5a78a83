// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// keylimeFiles is all of /etc/keylime as somebody has set it up.
func keylimeFiles(t *testing.T, h *world.Host) listing {
	t.Helper()
	all := listing{}
	all.walk(t, h, "/etc/keylime")
	return all
}

// byHand makes what is installed look as if people had set it up, with no trace of
// omen-agent.
func (m *machine) byHand(ctx context.Context, t *testing.T) {
	t.Helper()
	check(m.Must(ctx, "sh", "-ec", `cd /etc/keylime
cp -aL certs hand && rm certs hand/.omen-manifest hand/*.sealed && mv hand certs
rm -f .*.conf.omen
mv agent.conf.d/50-omen.conf agent.conf.d/10-hand.conf
rm -r /var/lib/omen-agent/keylime /run/omen-agent/keylime`))(t)
}

// TestGoBackAndLeave: an agent goes back a generation, puts the host back as it was
// found, and takes its key out of the TPM.
func TestGoBackAndLeave(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "leave", world.Agent)
	renew(ctx, t, m.Host, 0)
	m.byHand(ctx, t)
	found, hand := keylimeFiles(t, m.Host), m.served(ctx, t)

	renew(ctx, t, m.Host, 0)
	first := m.served(ctx, t)
	renew(ctx, t, m.Host, 0)

	var back struct{ Generation, From int }
	r := agent(ctx, t, m.Host, "--output", "json", "rollback")
	if r.Code != 0 {
		t.Fatal(r.Unexpected(m.Host, 0))
	}
	must(t, json.Unmarshal([]byte(r.Stdout), &back))
	if back.Generation != 1 || back.From != 2 {
		t.Errorf("went back to %d from %d", back.Generation, back.From)
	}
	m.wantLeaf(ctx, t, first)

	if r := agent(ctx, t, m.Host, "forget"); r.Code == 0 || !strings.Contains(r.Stderr, "uninstall") {
		t.Errorf("forgotten while certificates are installed: exit code %d\n%s", r.Code, r.Stderr)
	}
	if r := agent(ctx, t, m.Host, "uninstall"); r.Code != 0 {
		t.Fatal(r.Unexpected(m.Host, 0))
	}
	if left := keylimeFiles(t, m.Host); !maps.Equal(found, left) {
		wantSame(t, found, left)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	must(t, world.Await(short, func(ctx context.Context) error { _, err := l.World.Served(ctx, m.address); return err }))
	m.wantLeaf(ctx, t, hand)

	if r := agent(ctx, t, m.Host, "forget"); r.Code != 0 || !strings.Contains(r.Stdout, "taken out of the TPM") {
		t.Error(r.Unexpected(m.Host, 0))
	}
	if m.Exists("/var/lib/omen-agent/state") {
		t.Error("the state is still there")
	}
	if left, err := m.TPM.Leaks(); err != nil || len(left) > 0 {
		t.Errorf("left in the TPM: %v, %v", left, err)
	}
	renew(ctx, t, m.Host, 0) // nothing of it keeps the host from coming again
	m.wantServed(ctx, t)
}
