// SPDX-License-Identifier: Apache-2.0

package world_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

// newWorld is a world with the hosts spire and auth that ends with the test.
func newWorld(t *testing.T) (context.Context, *world.World) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	w, err := world.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, host := range [][2]string{{world.Spire, world.SpireIP}, {world.Auth, world.AuthIP}} {
		if _, err := w.AddHost(ctx, host[0], host[1]); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, w
}

func TestHostsAreApart(t *testing.T) {
	ctx, w := newWorld(t)
	spire, auth := w.Host(world.Spire), w.Host(world.Auth)
	for _, path := range []string{"/etc/omen-probe", "/var/lib/omen-probe", "/var/log/omen-probe", "/usr/bin/omen-probe", "/run/omen-probe"} {
		if err := spire.WriteFile(path, []byte("spire"), 0o600); err != nil {
			t.Fatal(err)
		}
		if auth.Exists(path) {
			t.Errorf("auth sees spire's %s", path)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the machine has %s: %v", path, err)
		}
	}
	if spire.TPM.Device() == auth.TPM.Device() {
		t.Error("two hosts have one TPM")
	}
	for _, h := range w.Hosts() {
		name, err := h.Must(ctx, "hostname")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(name.Stdout); got != h.Name {
			t.Errorf("%s calls itself %s", h.Name, got)
		}
		groups, err := h.Must(ctx, "id", "-Gn", "keylime")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(groups.Stdout); got != "keylime tss" {
			t.Errorf("%s: keylime is in %q", h.Name, got)
		}
	}
}

// TestLinksStayOnTheHost reads through an absolute link, which must not lead
// to the machine's file of that name.
func TestLinksStayOnTheHost(t *testing.T) {
	ctx, w := newWorld(t)
	spire := w.Host(world.Spire)
	if err := spire.WriteFile("/var/lib/omen-target/file", []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := spire.Must(ctx, "ln", "-s", "/var/lib/omen-target", "/etc/omen-link"); err != nil {
		t.Fatal(err)
	}
	got, err := spire.ReadFile("/etc/omen-link/file")
	if err != nil || string(got) != "inside" {
		t.Errorf("read %q, %v", got, err)
	}
	if target, err := spire.Readlink("/etc/omen-link"); err != nil || target != "/var/lib/omen-target" {
		t.Errorf("the link says %q, %v", target, err)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	ctx, w := newWorld(t)
	spire := w.Host(world.Spire)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := spire.Run(short, "sleep", "1000"); err == nil {
		t.Error("a command outlived its context without an error")
	}
	err := world.Await(ctx, func(ctx context.Context) error {
		left, err := spire.Run(ctx, "pgrep", "-x", "sleep")
		if err == nil && left.Code == 0 {
			err = errors.New("sleep runs still: " + left.Stdout)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSeed holds the laid files against what the seed document says.
func TestSeed(t *testing.T) {
	ctx, w := newWorld(t)
	spire, auth := w.Host(world.Spire), w.Host(world.Auth)
	if err := w.StartOpenBao(ctx, spire, world.StoryNames()); err != nil {
		t.Fatalf("%v\n%s", err, w.Logs(20))
	}
	if _, err := w.LaySeed(ctx); err != nil {
		t.Fatalf("%v\n%s", err, w.Logs(20))
	}
	for _, check := range []struct {
		host                *world.Host
		path, contains, not string
	}{
		{spire, "/etc/keylime/verifier.conf", "\nserver_key = verifier.key           # Changed from: default\n", ""},
		{spire, "/etc/keylime/verifier.conf.backup-20260210", "\nenable_agent_mtls = False\n", "Changed"},
		{spire, "/etc/keylime/registrar.conf", "\ntrusted_client_ca = ca.crt          # Changed from: default\n", ""},
		{spire, "/etc/keylime/registrar.conf.backup-20260210", "\ntls_dir = default\n", "Changed"},
		{auth, "/etc/keylime/keylime-agent.conf", "\nserver_key = \"/etc/keylime/certs/agent.key\"        # Changed from: \"default\"\n", ""},
		{auth, "/etc/keylime/keylime-agent.conf.backup-20260210", "\nenable_agent_mtls = false\n", "Changed"},
	} {
		text, err := check.host.ReadFile(check.path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(text), check.contains) {
			t.Errorf("%s has no line %q", check.path, check.contains)
		}
		if check.not != "" && strings.Contains(string(text), check.not) {
			t.Errorf("%s has %q", check.path, check.not)
		}
	}
	checkSeedOwners(ctx, t, spire, "root:root", "ca.crt registrar.crt registrar.key verifier.crt verifier.key")
	checkSeedOwners(ctx, t, auth, "keylime:tss", "agent.crt agent.key ca.crt")
	checkPlainVersion(ctx, t)
}

func checkSeedOwners(ctx context.Context, t *testing.T, h *world.Host, owner, names string) {
	t.Helper()
	entries, err := h.ReadDir(world.CertsDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(strings.Fields(names)) {
		t.Errorf("%s has %v, not %s", h.Name, entries, names)
	}
	for name := range strings.FieldsSeq(names) {
		want := owner + " 644"
		if strings.HasSuffix(name, ".key") {
			want = owner + " 600"
		}
		got, err := h.Must(ctx, "stat", "-c", "%U:%G %a", world.CertsDir+"/"+name)
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.TrimSpace(got.Stdout) != want {
			t.Errorf("%s:%s is %s, not %s", h.Name, name, got.Stdout, want)
		}
	}
}

// checkPlainVersion asks the agent as the seed has it, with mTLS still off.
func checkPlainVersion(ctx context.Context, t *testing.T) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+world.AuthIP+":9002/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Results struct {
			Version  string   `json:"supported_version"`
			Versions []string `json:"supported_versions"`
		} `json:"results"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Results.Version != "2.6" || len(answer.Results.Versions) != 6 {
		t.Errorf("the agent claims %+v", answer.Results)
	}
}
