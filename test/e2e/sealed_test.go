// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/test/world"
)

const plainKeys = "/run/omen-agent/keylime"

// rebooted takes away what a reboot takes away: plain keys, and what the TPM
// counted since.
func (m *machine) rebooted(ctx context.Context, t *testing.T) {
	t.Helper()
	check(m.Must(ctx, "rm", "-r", plainKeys))(t)
	must(t, m.TPM.Reboot())
}

// event extends PCR 7, as firmware does that has changed, and gives its value.
func (m *machine) event(t *testing.T) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte("a new dbx"))
	must(t, m.TPM.Extend(7, tpm2.TPMAlgSHA256, digest[:]))
	return check(m.TPM.PCR(7, tpm2.TPMAlgSHA256))(t)
}

// TestSealedKeys: plain keys are in memory only, come back after a reboot without
// a network, and do not in a state of the machine that nobody announced.
func TestSealedKeys(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "asleep", world.Verifier)
	renew(ctx, t, m.Host, 0)
	key := check(m.Readlink("/var/lib/omen-agent/keylime/current/verifier.key"))(t)
	if key != plainKeys+"/gen-000001/verifier.key" {
		t.Fatalf("verifier.key leads to %s", key)
	}
	before := check(m.ReadFile(key))(t)
	for name, text := range installed(t, m.Host) {
		if strings.HasPrefix(name, "/var/lib/") && strings.Contains(text, fmt.Sprintf("%x", sha256.Sum256(before))) {
			t.Errorf("the plain key is on the disk: %s", name)
		}
	}

	t.Run("reboot", func(t *testing.T) {
		m.rebooted(ctx, t)
		if r := agent(ctx, t, m.Host, "unseal"); r.Code != 0 || !strings.Contains(r.Stdout, "verifier-client, verifier") {
			t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		if after := check(m.ReadFile(key))(t); string(after) != string(before) {
			t.Error("another key came back")
		}
		if owner := check(m.Must(ctx, "stat", "-c", "%U %a", key))(t); strings.TrimSpace(owner.Stdout) != "keylime 600" {
			t.Errorf("the key is of %s", owner.Stdout)
		}
		if r := agent(ctx, t, m.Host, "unseal"); r.Code != 0 || strings.Contains(r.Stdout, "verifier") {
			t.Errorf("a second time: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
	t.Run("a state that nobody announced", func(t *testing.T) {
		m.rebooted(ctx, t)
		m.event(t)
		r := agent(ctx, t, m.Host, "unseal")
		if r.Code != 6 || !strings.Contains(r.Stderr, "PCR [7] moved") || m.Exists(key) {
			t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		renew(ctx, t, m.Host, 3) // a fresh login decides: this state is not one of the host's
		m.enrol(ctx, t)          // an operator accepts it
		renew(ctx, t, m.Host, 0)
		m.wantServed(ctx, t)
	})
	t.Run("an announced state", func(t *testing.T) {
		m.rebooted(ctx, t)
		value := m.event(t)
		must(t, m.TPM.Reboot()) // PCR 7 is as it was
		m.enrol(ctx, t)
		renew(ctx, t, m.Host, 0)
		if r := agent(ctx, t, m.Host, "announce", fmt.Sprintf("7=%x", value)); r.Code != 0 {
			t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		m.rebooted(ctx, t)
		m.event(t)
		if r := agent(ctx, t, m.Host, "unseal"); r.Code != 0 || !strings.Contains(r.Stdout, "verifier") {
			t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		m.wantServed(ctx, t)
	})
}
