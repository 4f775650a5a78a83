// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
)

const pluginName = "openbao-plugin-auth-tpm"

// baoBinary finds the real server: OMEN_BAO, PATH, or where make setup puts it.
func baoBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("OMEN_BAO"); path != "" {
		return path
	}
	if path, err := exec.LookPath("bao"); err == nil {
		return path
	}
	path, err := filepath.Abs("../.cache/venv/bin/bao")
	check(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatal("bao is not here: run make setup, or name it in OMEN_BAO")
	}
	return path
}

// server is a real OpenBao in development mode with the plugin that was built
// from this tree.
type server struct {
	t    *testing.T
	root *api.Client
	anon *api.Client
}

func startBao(t *testing.T) *server {
	t.Helper()
	bao, dir := baoBinary(t), t.TempDir()
	plugins := filepath.Join(dir, "plugins")
	check(t, os.Mkdir(plugins, 0o700))
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, pluginName), "../cmd/"+pluginName)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build plugin: %v\n%s", err, out)
	}
	address := freePort(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	check(t, err)
	cmd := exec.Command(bao, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root",
		"-dev-listen-address="+address, "-dev-plugin-dir="+plugins)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(t, cmd.Start())
	t.Cleanup(func() { stop(t, cmd, log.Name()) })
	s := &server{t: t, root: client(t, address, "root"), anon: client(t, address, "")}
	s.await()
	return s
}

// stop ends the server and its plugins, which are of its process group.
func stop(t *testing.T, cmd *exec.Cmd, log string) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("bao does not end")
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // a plugin that outlives it
	if text, err := os.ReadFile(log); err == nil && t.Failed() {
		t.Logf("bao says:\n%s", text)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer func() { check(t, l.Close()) }()
	return l.Addr().String()
}

func client(t *testing.T, address, token string) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	config.Address, config.MaxRetries = "http://"+address, 0
	c, err := api.NewClient(config)
	check(t, err)
	c.SetToken(token)
	return c
}

func (s *server) await() {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for {
		if h, err := s.root.Sys().Health(); err == nil && h.Initialized && !h.Sealed {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatal("bao does not become ready")
		}
	}
}

func (s *server) write(path string, data map[string]any) *api.Secret {
	s.t.Helper()
	secret, err := s.root.Logical().Write(path, data)
	check(s.t, err)
	return secret
}

func (s *server) challenge(request *attest.ChallengeRequest) (c *attest.Challenge, err error) {
	s.t.Helper()
	secret, err := s.anon.Logical().Write("auth/tpm/challenge", body(s.t, request))
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(secret.Data)
	check(s.t, err)
	c = new(attest.Challenge)
	check(s.t, json.Unmarshal(b, c))
	check(s.t, c.Check())
	return c, nil
}

func (s *server) login(m *attest.LoginRequest) (*api.SecretAuth, error) {
	s.t.Helper()
	secret, err := s.anon.Logical().Write("auth/tpm/login", body(s.t, m))
	if err != nil {
		return nil, err
	}
	return secret.Auth, nil
}

// wantHTTP fails unless the host sees exactly this of a refusal.
func wantHTTP(t *testing.T, err error, want attest.Rule) {
	t.Helper()
	var e *api.ResponseError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want the refusal %s", err, want)
	}
	if e.StatusCode != want.Status() || !slices.Equal(e.Errors, []string{attest.RefusalPrefix + string(want)}) {
		t.Fatalf("got %d %q, want %d and the rule %s", e.StatusCode, e.Errors, want.Status(), want)
	}
}
