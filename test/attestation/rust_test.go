// SPDX-License-Identifier: Apache-2.0

//go:build keylimeagent

package attestation_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// patience is how long Keylime's verifier, with its own settings, goes on asking an
// agent that does not answer.
const patience = 62 * time.Second

// invalidQuote is the state of an agent whose quote the verifier refused.
const invalidQuote = 9

// newRustLab is newLab with the verifier's own patience, and an agent that attests.
func newRustLab(t *testing.T, drop string) (context.Context, *lab) {
	t.Helper()
	if os.Getenv(agentVariable) == "" {
		t.Fatal("no agent to test: make test-keylime-agent KEYLIME_AGENT=/path/to/keylime_agent")
	}
	ctx, l := newLab(t, drop, 8*time.Minute)
	l.renew(ctx, t, l.Auth)
	l.add(ctx, t)
	l.attested(ctx, t, 0)
	return ctx, l
}

// TestRenewalsWhileAttested: three new keys for the agent, and one set that its
// service does not start with, and the verifier goes on counting; it never gives
// the agent up.
func TestRenewalsWhileAttested(t *testing.T) {
	ctx, l := newRustLab(t, "")
	for range 3 {
		before, leaf := l.attested(ctx, t, 0), l.leaf(t)
		l.renew(ctx, t, l.Auth)
		if fresh := l.leaf(t); string(fresh.RawSubjectPublicKeyInfo) == string(leaf.RawSubjectPublicKeyInfo) {
			t.Error("the key is the old one")
		}
		l.goesOn(ctx, t, before.Count)
	}
	before, leaf := l.attested(ctx, t, 0), l.leaf(t)
	l.breakNext(ctx, t)
	began := time.Now()
	check(story.Renew(ctx, l.Auth, 8))(t)
	t.Logf("refused and rolled back in %.1f s", time.Since(began).Seconds())
	if !l.leaf(t).Equal(leaf) {
		t.Error("not rolled back")
	}
	l.goesOn(ctx, t, before.Count)
	l.renew(ctx, t, l.Spire) // the verifier's own restart, with a new client certificate
	l.goesOn(ctx, t, before.Count)
}

// goesOn wants the count to move within the verifier's patience, and never a state
// that the verifier does not come back from.
func (l *lab) goesOn(ctx context.Context, t *testing.T, count int) {
	t.Helper()
	began := time.Now()
	now := l.await(ctx, t, patience, func(w watched) bool {
		if w.State == failed || w.State == invalidQuote {
			t.Fatalf("the verifier says %+v", w)
		}
		return w.State == getQuote && w.Count > count
	})
	t.Logf("attestation_count %d, then %d, after %.1f s", count, now.Count, time.Since(began).Seconds())
	if told := l.verify(ctx, t, 0); strings.Contains(told, "reactivated") {
		t.Errorf("reactivated:\n%s", told)
	}
}

// breakNext has the agent's next start fail, once.
func (l *lab) breakNext(ctx context.Context, t *testing.T) {
	t.Helper()
	check(l.Auth.Must(ctx, "sh", "-ec", `cd /usr/bin && cp -a keylime_agent keylime_agent.good
printf '#!/bin/sh\nmv /usr/bin/keylime_agent.good /usr/bin/keylime_agent\nexit 1\n' > keylime_agent.bad
chmod 0755 keylime_agent.bad && mv keylime_agent.bad keylime_agent`))(t)
}

func (l *lab) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	return check(l.Auth.Installed("agent"))(t)
}

// TestExpiredCertificate: the agent's certificate runs out, the verifier gives it
// up, and a renewal and omen-agent verify bring it back.
func TestExpiredCertificate(t *testing.T) {
	ctx, l := newRustLab(t, "max_retries = 3\n") // 14 s, enough for a restart
	l.lifetime(ctx, t, "75s")
	l.renew(ctx, t, l.Auth)
	short := l.leaf(t)
	t.Logf("valid until %s", short.NotAfter)
	if left := time.Until(short.NotAfter); left > time.Minute*2 {
		t.Fatalf("valid for %s", left)
	}
	l.attested(ctx, t, 0)
	l.await(ctx, t, 3*time.Minute, func(w watched) bool { return w.State == failed })
	if time.Now().Before(short.NotAfter) {
		t.Fatal("given up before the certificate ran out")
	}
	l.lifetime(ctx, t, "24h")
	l.renew(ctx, t, l.Auth)
	want(t, l.verify(ctx, t, 0), "reactivated: the verifier had given it up")
	l.attested(ctx, t, 0)
}

// lifetime bounds what OpenBao issues to auth.
func (l *lab) lifetime(ctx context.Context, t *testing.T, ttl string) {
	t.Helper()
	admin := check(l.World.Bao.Admin(ctx))(t)
	const role = "pki_int/roles/" + world.Auth + ".server"
	secret := check(admin.Logical().ReadWithContext(ctx, role))(t)
	if secret == nil {
		t.Fatal(errors.New("no role " + role))
	}
	secret.Data["max_ttl"], secret.Data["ttl"] = ttl, ttl
	check(admin.Logical().WriteWithContext(ctx, role, secret.Data))(t)
}
