// SPDX-License-Identifier: Apache-2.0

package attestation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/test/authority"
	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
	"funlab.casa/omen/tpmsim"
)

// A lab is the story's two hosts, with a real agent of Keylime on auth.
type lab struct {
	*story.Story
	vendor *tpmsim.CA  // of the TPM that Keylime's agent has for itself
	device *tpmsim.TPM // an agent of 6.6.0 takes ownership, and swtpm serves one client at a time
}

// newLab brings the story to where spire has its certificates and its services
// run, and puts an agent on auth, not yet started. drop is added to the verifier's
// configuration.
func newLab(t *testing.T, drop string, limit time.Duration) (context.Context, *lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	l := &lab{Story: &story.Story{}}
	t.Cleanup(func() { must(t, l.Close()) })
	t.Cleanup(func() {
		if t.Failed() && l.World != nil {
			t.Log(l.World.Logs(12))
		}
	})
	for _, step := range story.Steps()[:4] {
		told, err := step.Run(ctx, l.Story)
		if err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
		t.Logf("%s: %s", step.Name, told)
	}
	l.startTPM(t)
	l.configure(ctx, t, drop)
	l.installAgent(ctx, t)
	l.renew(ctx, t, l.Spire)
	return ctx, l
}

// startTPM switches on a TPM for the user keylime.
func (l *lab) startTPM(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	l.vendor = check(tpmsim.NewCA(filepath.Join(dir, "vendor")))(t)
	state := check(l.vendor.Manufacture("keylime"))(t)
	l.device = check(state.Start(tpmsim.Options{}))(t)
	t.Cleanup(func() { must(t, l.device.Stop()) })
	user := check(l.Auth.User("keylime"))(t)
	for _, path := range []string{filepath.Dir(l.device.Socket()), l.device.Socket(), l.device.Socket() + ".ctrl"} {
		must(t, os.Chown(path, user.UID, user.GID))
	}
}

// configure has the tenant's host watch the agent, and tells Keylime what the
// test needs: whom to trust for the agent's TPM, and how soon to give up.
func (l *lab) configure(ctx context.Context, t *testing.T, drop string) {
	t.Helper()
	certificates := world.SpireCertificates()
	certificates[3].Agents = []string{world.AgentUUID}
	must(t, l.Spire.WriteAgentConfig(certificates))
	issuer := authority.CertificatePEM(l.vendor.Issuer().Raw)
	user := check(l.Spire.User("keylime"))(t)
	check(l.Spire.Must(ctx, "install", "-d", "-o", "keylime", "-m", "0700", "/var/lib/keylime/tpm_cert_store"))(t)
	must(t, l.Spire.WriteFileAs("/var/lib/keylime/tpm_cert_store/issuer.pem", issuer, 0o400, user.UID, user.GID))
	must(t, l.Spire.WriteFileAs("/etc/keylime/verifier.conf.d/10-test.conf", []byte("[verifier]\n"+drop), 0o400, user.UID, user.GID))
}

// renew runs omen-agent renew.
func (l *lab) renew(ctx context.Context, t *testing.T, h *world.Host) {
	t.Helper()
	began := time.Now()
	check(story.Renew(ctx, h, 0))(t)
	t.Logf("renewed on %s in %.1f s", h.Name, time.Since(began).Seconds())
}

// add gives the agent to the verifier.
func (l *lab) add(ctx context.Context, t *testing.T) {
	t.Helper()
	check(l.tenant(ctx, "add", "-t", world.AuthIP))(t)
}

func (l *lab) tenant(ctx context.Context, command string, more ...string) (world.Result, error) {
	return l.Spire.KeylimeTenant(ctx, append([]string{"-c", command, "--uuid", world.AgentUUID}, more...)...)
}

// wantTenant wants Keylime's own command to say that the agent is attested.
func (l *lab) wantTenant(ctx context.Context, t *testing.T) {
	t.Helper()
	told := check(l.tenant(ctx, "status"))(t).Stdout
	want(t, told, `"operational_state": "Get Quote"`, `"attestation_status": "PASS"`)
}

// watched is what the verifier tells of the agent.
type watched struct {
	State  int    `json:"operational_state"`
	Status string `json:"attestation_status"`
	Count  int    `json:"attestation_count"`
}

// States of an agent, as Keylime counts them.
const (
	getQuote = 3
	failed   = 7
)

// status asks the verifier, as the tenant does.
func (l *lab) status(ctx context.Context) (watched, error) {
	var answer struct {
		Results watched `json:"results"`
	}
	client, err := l.Spire.Pair("tenant")
	if err != nil {
		return answer.Results, err
	}
	code, body, err := l.World.AsClient(ctx, client, "https://"+world.SpireIP+":8881/v2.6/agents/"+world.AgentUUID)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d", code)
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	return answer.Results, err
}

// await waits until the verifier says what is wanted.
func (l *lab) await(ctx context.Context, t *testing.T, limit time.Duration, want func(watched) bool) watched {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last watched
	err := world.Await(ctx, func(ctx context.Context) error {
		now, err := l.status(ctx)
		if err == nil {
			last = now
			if !want(now) {
				err = errors.New("not yet")
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("the verifier says %+v: %v", last, err)
	}
	return last
}

// attested waits until the count is above.
func (l *lab) attested(ctx context.Context, t *testing.T, above int) watched {
	t.Helper()
	return l.await(ctx, t, 30*time.Second, func(w watched) bool {
		return w.State == getQuote && w.Status == "PASS" && w.Count > above
	})
}

// verify runs omen-agent verify on spire, and wants this exit code.
func (l *lab) verify(ctx context.Context, t *testing.T, code int, flags ...string) string {
	t.Helper()
	args := append([]string{"--config", world.AgentConfig, "verify"}, flags...)
	result := check(l.Spire.Run(ctx, "/usr/bin/omen-agent", args...))(t)
	if result.Code != code {
		t.Fatal(result.Unexpected(l.Spire, code))
	}
	return result.Stdout
}
