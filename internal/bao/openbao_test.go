// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"
)

// openBao is a real server, its own CA, and a PKI with a root and an
// intermediate. It lives as long as the test that started it.
type openBao struct {
	address, caFile string
	admin           *api.Client
	rootPEM         string
}

const rootToken = "root-of-the-test"

// baoBinary finds the server: OMEN_BAO, then PATH, then the set-up's folder.
func baoBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("OMEN_BAO"); path != "" {
		return path
	}
	if path, err := exec.LookPath("bao"); err == nil {
		return path
	}
	path, err := filepath.Abs("../../.cache/venv/bin/bao")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("no OpenBao server: run make setup, or set OMEN_BAO")
	}
	return path
}

// startOpenBao starts a development server with TLS on a free port of the
// loopback, and waits until it answers.
func startOpenBao(t *testing.T) *openBao {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().String()
	_ = listener.Close()
	dir := t.TempDir()
	command := exec.Command(baoBinary(t), "server", "-dev", "-dev-tls", "-dev-tls-cert-dir="+dir,
		"-dev-root-token-id="+rootToken, "-dev-no-store-token", "-dev-listen-address="+port)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("OpenBao:\n%s", output.String()[max(0, output.Len()-4000):])
		}
	})
	server := &openBao{address: "https://" + port, caFile: filepath.Join(dir, "vault-ca.pem")}
	server.waitUntilReady(t)
	server.makePKI(t)
	return server
}

func (o *openBao) waitUntilReady(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if time.Now().After(deadline) {
			t.Fatal("OpenBao did not get ready in 30 s")
		}
		roots, err := readCAs(o.caFile)
		if err != nil {
			continue
		}
		o.admin, err = newAPIClient(o.address, "", newTransport(roots, ""))
		if err != nil {
			t.Fatal(err)
		}
		o.admin.SetToken(rootToken)
		if health, err := o.admin.Sys().Health(); err == nil && health.Initialized && !health.Sealed {
			return
		}
	}
}

// write is an administrator's call that must succeed.
func (o *openBao) write(t *testing.T, path string, data map[string]any) map[string]any {
	t.Helper()
	secret, err := o.admin.Logical().WriteWithContext(context.Background(), path, data)
	if err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	if secret == nil {
		return nil
	}
	return secret.Data
}

// makePKI mounts pki_root and pki_int and signs the second by the first.
func (o *openBao) makePKI(t *testing.T) {
	t.Helper()
	for _, mount := range []string{"pki_root", "pki_int"} {
		o.write(t, "sys/mounts/"+mount, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
	}
	root := o.write(t, "pki_root/root/generate/internal", map[string]any{"common_name": "Test Root", "key_type": "ec", "ttl": "87600h"})
	o.rootPEM = root["certificate"].(string)
	csr := o.write(t, "pki_int/intermediate/generate/internal", map[string]any{"common_name": "Test Intermediate", "key_type": "ec"})
	signed := o.write(t, "pki_root/root/sign-intermediate", map[string]any{"csr": csr["csr"], "ttl": "43800h", "max_path_length": 0})
	o.write(t, "pki_int/intermediate/set-signed", map[string]any{
		"certificate": signed["certificate"].(string) + "\n" + o.rootPEM})
}

// host is what the operator declares of one host.
type host struct {
	name    string
	domains []string
	ips     []string // of the server role, as CIDR
	uris    []string
}

// recipe is issuer/testdata/pki-roles.json, the roles that the documentation
// and the demo use.
type recipe struct {
	Server, Client map[string]any
	Policy         string
}

func readRecipe(t *testing.T) recipe {
	t.Helper()
	text, err := os.ReadFile("../../issuer/testdata/pki-roles.json")
	if err != nil {
		t.Fatal(err)
	}
	var r recipe
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// enrol writes the roles and the policy of h and returns a token like the one
// of a login: batch, two minutes, this policy alone.
func (o *openBao) enrol(t *testing.T, h host) Token {
	t.Helper()
	r := readRecipe(t)
	policy := ""
	for usage, role := range map[string]map[string]any{"server": r.Server, "client": r.Client} {
		role["allowed_domains"], role["allowed_uri_sans"] = h.domains, h.uris
		if usage == "server" {
			role["allowed_ip_sans_cidr"] = h.ips
		}
		o.write(t, "pki_int/roles/"+h.name+"."+usage, role)
		policy += strings.NewReplacer("<mount>", "pki_int", "<host>", h.name, "<usage>", usage).Replace(r.Policy)
	}
	o.write(t, "sys/policies/acl/omen-host-"+h.name, map[string]any{"policy": policy})
	secret, err := o.admin.Auth().Token().Create(&api.TokenCreateRequest{
		Type: "batch", TTL: "2m", Policies: []string{"omen-host-" + h.name}, NoDefaultPolicy: true, NoParent: true})
	if err != nil {
		t.Fatal(err)
	}
	token, err := newToken(secret.Auth.ClientToken)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// raw sends data to path as it is written, without the cleaning of the library.
// It returns the status and the data of the answer.
func (o *openBao) raw(t *testing.T, token, path string, data map[string]any) (int, map[string]any) {
	t.Helper()
	body, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, o.address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", token)
	roots, err := readCAs(o.caFile)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct{ Data map[string]any }
	if response.StatusCode == http.StatusOK {
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
	}
	return response.StatusCode, answer.Data
}
