// SPDX-License-Identifier: Apache-2.0

package attestation_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// impatient has the verifier give an agent up after a few seconds instead of 62.
const impatient = "max_retries = 1\nretry_interval = 1\n"

// TestAttestationGoesOn: an agent attests under certificates that omen-agent
// installed on both sides, and omen-agent verify says so. One that the verifier
// gives up is asked again, once.
func TestAttestationGoesOn(t *testing.T) {
	ctx, l := newLab(t, impatient, 3*time.Minute)
	l.renew(ctx, t, l.Auth)
	l.add(ctx, t)
	l.attested(ctx, t, 0)
	l.wantTenant(ctx, t)
	told := l.verify(ctx, t, 0)
	t.Log(told)
	want(t, told, world.AgentUUID+": attestation_count ", "operational_state 3 (Get Quote)", "client without certificate refused")
	if strings.Contains(told, "reactivated") {
		t.Error("a healthy agent is reactivated")
	}

	l.gone(ctx, t)
	want(t, l.verify(ctx, t, 8), "operational_state 7 (Failed); it is not reactivated before its port answers")
	l.back(t)
	l.wantRevived(ctx, t)

	l.gone(ctx, t)
	l.back(t)
	told = l.verify(ctx, t, 8)
	t.Log(told)
	want(t, told, "operational_state 7 again: it was reactivated since certificates changed")
	l.wantReactivated(t, 1)
	check(l.tenant(ctx, "reactivate"))(t)
	l.attested(ctx, t, 0)
	l.verify(ctx, t, 0)
}

// wantRevived wants verify to have the verifier ask again, to say so, and not to do
// it a second time.
func (l *lab) wantRevived(ctx context.Context, t *testing.T) {
	t.Helper()
	var found []struct {
		Agent, Check, Detail, Did string
		OK                        bool
	}
	must(t, json.Unmarshal([]byte(l.verify(ctx, t, 0, "--output", "json")), &found))
	last := found[len(found)-1]
	t.Logf("%+v", last)
	if last.Agent != world.AgentUUID || !last.OK || !strings.HasPrefix(last.Did, "reactivated: the verifier had given it up (internal.verifier.not_reachable)") {
		t.Errorf("verify says %+v", last)
	}
	if told := l.verify(ctx, t, 0); strings.Contains(told, "reactivated") {
		t.Errorf("reactivated twice:\n%s", told)
	}
	l.wantReactivated(t, 1)
}

// wantReactivated counts what the verifier was asked to do.
func (l *lab) wantReactivated(t *testing.T, times int) {
	t.Helper()
	log := string(check(l.Spire.ReadFile("/var/log/keylime/verifier.log"))(t))
	if got := strings.Count(log, "PUT returning 200 response for pull-mode agent id"); got != times {
		t.Errorf("reactivated %d times, not %d", got, times)
	}
}

func want(t *testing.T, told string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(told, word) {
			t.Errorf("%q is not in\n%s", word, told)
		}
	}
}

// gone takes the agent's address off the network and waits until the verifier has
// given it up. The agent itself knows nothing of it.
func (l *lab) gone(ctx context.Context, t *testing.T) {
	t.Helper()
	ip(t, "del")
	l.await(ctx, t, 30*time.Second, func(w watched) bool { return w.State == failed })
}

func (l *lab) back(t *testing.T) {
	t.Helper()
	ip(t, "add")
}

func ip(t *testing.T, verb string) {
	t.Helper()
	output, err := exec.Command("ip", "address", verb, world.AuthIP+"/32", "dev", "lo").CombinedOutput()
	if err != nil {
		t.Fatalf("ip address %s: %v: %s", verb, err, output)
	}
}
