// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/issuer"
)

// The two hosts. Names and addresses of B begin with, end in or contain those of
// A; only localhost and the loopback addresses are shared.
var (
	hostA = host{
		name:    "web",
		domains: []string{"web.example", "localhost"},
		ips:     []string{"10.10.2.6/32", "fd00::6/128", "127.0.0.1/32", "::1/128"},
		uris:    []string{"spiffe://example.org/web"},
	}
	hostB = host{
		name:    "web1",
		domains: []string{"web1.example", "web.example.org", "db.web.example", "myweb.example", "localhost"},
		ips:     []string{"10.10.2.62/32", "10.10.2.7/32", "fd00::62/128", "127.0.0.1/32", "::1/128"},
		uris:    []string{"spiffe://example.org/web1"},
	}
)

// TestOpenBao is everything that is proven against the real server.
func TestOpenBao(t *testing.T) {
	server := startOpenBao(t)
	tokenA, tokenB := server.enrol(t, hostA), server.enrol(t, hostB)
	client := newClient(t, Config{Addresses: []string{server.address}, CAFile: server.caFile, AuthPath: "auth/tpm"})
	client.timing = timing{budget: 10 * time.Second, attempt: 10 * time.Second, proof: 10 * time.Second, patience: 10 * time.Second, slowness: 10 * time.Second, spacing: time.Second}
	here := client.Nodes()[0]
	anchors, err := issuer.ParseAnchors([]byte(server.rootPEM))
	if err != nil {
		t.Fatal(err)
	}
	s := &signing{server: server, client: client, anchors: anchors}
	s.sessions = map[string]*Session{
		"web":  {Token: tokenA, Host: "web", Node: here},
		"web1": {Token: tokenB, Host: "web1", Node: here},
	}
	t.Run("issue", s.testIssue)
	t.Run("hosts apart", s.testHostsApart)
	t.Run("own e-mail address", s.testOwnEMail)
	t.Run("tickets", s.testTickets)
	t.Run("paths of tickets", s.testTicketPaths)
	t.Run("largest login", s.testLargestLogin)
	t.Run("errors", s.testErrors)
	t.Run("sealed", s.testSealed) // the last: nothing works afterwards
}

func addresses(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// testIssue has every name that a host may have signed and judged. For host B
// it shows that what A is refused below is there to be had.
func (s *signing) testIssue(t *testing.T) {
	rows := map[string]struct {
		host    string
		request issuer.Request
	}{
		"server of A": {"web", issuer.Request{CommonName: "web.example", DNS: []string{"localhost"}, Usage: issuer.ServerAuth,
			IP: addresses("10.10.2.6", "fd00::6", "127.0.0.1", "::1")}},
		"client of A":    {"web", issuer.Request{CommonName: "web.example", Usage: issuer.ClientAuth}},
		"X509-SVID of A": {"web", issuer.Request{CommonName: "web.example", URI: "spiffe://example.org/web", Usage: issuer.ServerAuth}},
		"server of B": {"web1", issuer.Request{CommonName: "web1.example", Usage: issuer.ServerAuth,
			DNS: []string{"web.example.org", "db.web.example", "myweb.example"}, IP: addresses("10.10.2.62", "10.10.2.7", "fd00::62")}},
		"X509-SVID of B": {"web1", issuer.Request{CommonName: "web.example.org", URI: "spiffe://example.org/web1", Usage: issuer.ClientAuth}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			row.request.Name, row.request.TTL = "test", 12*time.Hour
			issued, err := s.issue(t, row.host, row.request)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(issued.NotAfter); left < 11*time.Hour || left > 12*time.Hour {
				t.Errorf("ends in %s, asked for 12 h", left)
			}
			opensslVerify(t, issued)
		})
	}
}

// issue is what the agent does: key, request, sign, judge.
func (s *signing) issue(t *testing.T, host string, request issuer.Request) (*issuer.Issued, error) {
	t.Helper()
	key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.CSR(request)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.client.Sign(t.Context(), s.sessions[host], "pki_int", host+"."+request.Usage.String(), csr, request.TTL)
	if err != nil {
		return nil, err
	}
	return issuer.Judge(issuer.Reply(*signed), request, key.SPKI(), s.anchors, time.Now())
}

// opensslVerify judges the files as OpenSSL's strict mode does.
func opensslVerify(t *testing.T, issued *issuer.Issued) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("no openssl: apt-get install openssl")
	}
	dir := t.TempDir()
	chain, ca := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "ca.pem")
	for path, text := range map[string][]byte{chain: issued.ChainPEM, ca: issued.CAPEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output, err := exec.Command("openssl", "verify", "-x509_strict", "-CAfile", ca, chain).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, output)
	}
}

// testErrors has errors that only the real server can word.
func (s *signing) testErrors(t *testing.T) {
	ctx := t.Context()
	_, _, err := s.client.Challenge(ctx, challengeRequest())
	if e := asError(t, err); e.Kind != KindDenied || e.Retryable() || !strings.Contains(e.Hint(), "auth_path") {
		t.Errorf("no auth method there: %v", err)
	}
	request := issuer.Request{Name: "test", CommonName: "web1.example", Usage: issuer.ServerAuth, TTL: time.Hour}
	_, err = s.issue(t, "web", request)
	if e := asError(t, err); e.Kind != KindRejected || !strings.Contains(e.Message, "web1.example not allowed by this role") {
		t.Errorf("name of another host: %v", err)
	}
	nobody := *s.sessions["web"]
	nobody.Token, err = newToken("b.not-a-token")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.client.Sign(ctx, &nobody, "pki_int", "web.server", []byte("x"), time.Hour)
	if e := asError(t, err); e.Kind != KindDenied || strings.Contains(e.Error(), "not-a-token") {
		t.Errorf("no token: %v", err)
	}
	health := s.client.Health(ctx)[0]
	if health.Err != nil || health.Sealed || !strings.HasPrefix(health.Version, "2.") {
		t.Errorf("health %+v", health)
	}
	stranger := newClient(t, Config{Addresses: []string{s.server.address}, CAFile: caFile(t, newNode(t, healthy)), AuthPath: "auth/tpm"})
	_, _, err = stranger.Challenge(ctx, challengeRequest())
	if e := asError(t, err); e.Kind != KindUnknownCA || e.Served == nil {
		t.Errorf("unknown CA: %v", err)
	}
}

func (s *signing) testSealed(t *testing.T) {
	if err := s.server.admin.Sys().Seal(); err != nil {
		t.Fatal(err)
	}
	s.client.timing.budget = 2 * time.Second
	_, _, err := s.client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindSealed || !e.Retryable() || e.Hint() == "" {
		t.Errorf("challenge: %v", err)
	}
	if health := s.client.Health(t.Context())[0]; health.Err != nil || !health.Sealed {
		t.Errorf("health %+v", health)
	}
}
