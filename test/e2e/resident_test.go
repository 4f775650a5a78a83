// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"funlab.casa/omen/test/world"
)

// TestKeyInTheTPM: the key of a client certificate is in the TPM, which signs when the
// verifier is asked; the verifier's own is left to auto.
func TestKeyInTheTPM(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "resident", world.Verifier)
	text := string(check(m.ReadFile(world.AgentConfig))(t))
	text = strings.Replace(text, `name = "verifier-client"`, `name = "tenant"`, 1)
	text = strings.Replace(text, `"keylime-verifier-client"`, `"keylime-tenant"`, 1)
	text = strings.Replace(text, `key = "sealed"`, `key = "auto"`, 1)
	text = strings.Replace(text, `key = "sealed"`, "key = \"tpm\"\nloads_tss2 = true", 1)
	must(t, m.WriteFile("/etc/keylime/tenant.conf", check(m.ReadFile("/etc/keylime/verifier.conf"))(t), 0o644))
	check(m.Must(ctx, "sed", "-i", "s/^.verifier.$/[tenant]/", "/etc/keylime/tenant.conf"))(t)
	must(t, m.WriteFile(world.AgentConfig, []byte(text), 0o600))
	renew(ctx, t, m.Host, 0)
	m.wantKeys(ctx, t)
	before := check(m.ReadFile("/var/lib/omen-agent/keylime/current/tenant.key"))(t)
	if !strings.HasPrefix(string(before), "-----BEGIN TSS2 PRIVATE KEY-----") {
		t.Error("tenant.key is no TSS2 file")
	}
	if r := agent(ctx, t, m.Host, "verify"); r.Code != 0 || !strings.Contains(r.Stdout, "request with client certificate") {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := agent(ctx, t, m.Host, "renew", "--certificate", "verifier"); r.Code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if after := check(m.ReadFile("/var/lib/omen-agent/keylime/current/tenant.key"))(t); string(after) != string(before) {
		t.Error("the tenant's key was not carried over")
	}
	m.wantKeys(ctx, t)
}

// wantKeys wants the status to say where the keys are: auto sealed, tpm in the TPM.
func (m *machine) wantKeys(ctx context.Context, t *testing.T) {
	t.Helper()
	text := agent(ctx, t, m.Host, "status").Stdout
	for _, pattern := range []string{`key +verifier +sealed +PCR 7 of sha256, announced states: 0; auto: `, `key +tenant +tpm`, `no TPM keys +/usr/bin/keylime_verifier +.*1\.3 or newer`} {
		if !regexp.MustCompile("(?s)" + pattern).MatchString(text) {
			t.Errorf("no %q in:\n%s", pattern, text)
		}
	}
}
