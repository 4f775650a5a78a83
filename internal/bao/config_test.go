// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewMakesAudiences(t *testing.T) {
	ca := caFile(t, newNode(t, healthy))
	client, err := New(Config{
		Addresses: []string{"HTTPS://Spire.Funlab.casa:8200/", "https://openbao.example", "https://[2001:DB8::1]:8200"},
		CAFile:    ca, Namespace: "team/A/", AuthPath: "auth/tpm",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{"https://spire.funlab.casa:8200", "https://spire.funlab.casa:8200|team/A/|auth/tpm"},
		{"https://openbao.example:443", "https://openbao.example:443|team/A/|auth/tpm"},
		{"https://[2001:db8::1]:8200", "https://[2001:db8::1]:8200|team/A/|auth/tpm"},
	}
	if diff := cmp.Diff(want, client.Nodes()); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	n := newNode(t, healthy)
	ca := caFile(t, n)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate().Raw})
	address := func(a ...string) func(*Config) { return func(c *Config) { c.Addresses = a } }
	file := func(text string) func(*Config) {
		return func(c *Config) { c.CAFile = writeFile(t, []byte(text)) }
	}
	rows := map[string]struct {
		change func(*Config)
		word   string
	}{
		"no address":         {address(), "addresses"},
		"too many":           {address(strings.Split(strings.Repeat("https://a,", 17), ",")...), "addresses"},
		"http":               {address("http://a:8200"), "https"},
		"no scheme":          {address("a:8200"), "https"},
		"no host":            {address("https://"), "address"},
		"unix socket":        {address("unix:///run/bao"), "https"},
		"path":               {address("https://a:8200/v1"), "address"},
		"user":               {address("https://u:p@a:8200"), "address"},
		"query":              {address("https://a:8200?x=1"), "address"},
		"port 0":             {address("https://a:0"), "port"},
		"port too large":     {address("https://a:65536"), "port"},
		"port with zero":     {address("https://a:08200"), "port"},
		"zone":               {address("https://[fe80::1%25eth0]:8200"), "zone"},
		"bar in host":        {address("https://a|b:8200"), "address"},
		"control character":  {address("https://a\x1b:8200"), "printable"},
		"same address twice": {address("https://a:443", "https://A"), "twice"},
		"no CA file":         {func(c *Config) { c.CAFile = "" }, "ca_file"},
		"CA file missing":    {func(c *Config) { c.CAFile += ".no" }, "no such file"},
		"CA file empty":      {file(""), "no PEM certificate"},
		"CA file of text":    {file("hello"), "no PEM certificate"},
		"CA file with a key": {file(string(block) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "block 2"},
		"CA file too long":   {file(string(block) + strings.Repeat("\n", 1<<20)), "longer"},
		"namespace with bar": {func(c *Config) { c.Namespace = "a|b" }, "namespace"},
		"namespace up":       {func(c *Config) { c.Namespace = "a/../b" }, "namespace"},
		"no auth path":       {func(c *Config) { c.AuthPath = "" }, "auth_path"},
		"mount without auth": {func(c *Config) { c.AuthPath = "tpm" }, "auth_path"},
		"auth path up":       {func(c *Config) { c.AuthPath = "auth/../sys" }, "auth_path"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			config := Config{Addresses: []string{"https://a:8200"}, CAFile: ca, AuthPath: "auth/tpm"}
			row.change(&config)
			_, err := New(config)
			if err == nil || !strings.Contains(err.Error(), row.word) {
				t.Fatalf("error %v, want one about %q", err, row.word)
			}
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("error %q", err)
			}
		})
	}
}

// TestEnvironmentHasNoInfluence sets every variable that the library or the
// standard library would look at to something hostile.
func TestEnvironmentHasNoInfluence(t *testing.T) {
	decoy := newNode(t, healthy)
	hostile := map[string]string{
		"ADDR": decoy.URL, "AGENT_ADDR": decoy.URL, "SKIP_VERIFY": "true", "TOKEN": "s.hostile", "NAMESPACE": "hostile",
		"CACERT": "/nonexistent", "CACERT_BYTES": "x", "CAPATH": "/nonexistent", "CLIENT_CERT": "/nonexistent", "CLIENT_KEY": "/nonexistent",
		"CLIENT_TIMEOUT": "1ns", "TLS_SERVER_NAME": "hostile.example", "WRAP_TTL": "5m", "MAX_RETRIES": "9", "MFA": "x:y",
		"RATE_LIMIT": "garbage", "HTTP_PROXY": decoy.URL, "PROXY_ADDR": decoy.URL, "SRV_LOOKUP": "true", "DISABLE_REDIRECTS": "false",
	}
	for name, value := range hostile {
		t.Setenv("BAO_"+name, value)
		t.Setenv("VAULT_"+name, value)
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"} {
		t.Setenv(name, decoy.URL)
	}
	n, other := newNode(t, healthy), served(t, func(*x509.Certificate) {})
	t.Setenv("SSL_CERT_FILE", caFile(t, other))
	client := clientFor(t, n)
	if client.transport.Proxy != nil {
		t.Error("a proxy may be used")
	}
	_, where, err := client.Challenge(t.Context(), challengeRequest())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Login(t.Context(), where, loginRequest(where)); err != nil {
		t.Fatal(err)
	}
	for _, r := range n.asked() {
		for _, name := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Vault-Mfa", "X-Vault-Wrap-Ttl"} {
			if value := r.header.Get(name); value != "" {
				t.Errorf("%s: header %s: %s", r.path, name, value)
			}
		}
	}
	if len(decoy.asked()) != 0 {
		t.Error("the hostile address was asked")
	}
	stranger := newClient(t, Config{Addresses: []string{other.URL}, CAFile: caFile(t, n), AuthPath: "auth/tpm"})
	if _, _, err := stranger.Challenge(t.Context(), challengeRequest()); asError(t, err).Kind != KindUnknownCA {
		t.Errorf("a server that only the environment trusts: %v", err)
	}
}
