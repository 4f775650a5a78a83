// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *Error", err)
	}
	return e
}

// TestErrors has one bad answer a row, and what becomes of it.
func TestErrors(t *testing.T) {
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	refusal := func(code int, rule string) http.HandlerFunc { return errorAnswer(code, attest.RefusalPrefix+rule) }
	huge := strings.Repeat("x", 2<<20)
	rows := []struct {
		name      string
		handler   http.HandlerFunc
		kind      Kind
		rule      attest.Rule
		retryable bool
		startOver bool // after a login
	}{
		{"refused for good", refusal(403, "host-unknown"), KindRefused, "host-unknown", false, false},
		{"refused, challenge spent", refusal(403, "freshness"), KindRefused, "freshness", false, true},
		{"refused, other process", refusal(403, "challenge"), KindRefused, "challenge", false, true},
		{"refused, state", refusal(403, "state"), KindRefused, "state", false, true},
		{"refused for size", refusal(400, "size"), KindRefused, "size", false, false},
		{"refused by a fault", refusal(500, "internal"), KindRefused, "internal", false, false},
		{"refused by a rule of tomorrow", refusal(403, "new-rule"), KindRefused, "new-rule", false, false},
		{"refused among other texts", errorAnswer(403, "1 error occurred:\n\t* omen: refused: boot-policy\n\n"), KindRefused, "boot-policy", false, false},
		{"refused without a word", refusal(403, ""), KindDenied, "", false, false},
		{"refused with text instead", refusal(403, "Because I say so"), KindDenied, "", false, false},
		{"permission denied", errorAnswer(403, "permission denied"), KindDenied, "", false, false},
		{"bad request", errorAnswer(400, "missing csr"), KindRejected, "", false, false},
		{"no route", errorAnswer(404, "no handler for route"), KindRejected, "", false, false},
		{"404 without body", status(404, ""), KindRejected, "", false, false},
		{"behind", errorAnswer(412, "required index state not present"), KindBusy, "", true, true},
		{"quota", errorAnswer(429, "request path: rate limit quota exceeded"), KindBusy, "", true, true},
		{"sealed", errorAnswer(503, "Vault is sealed"), KindSealed, "", true, true},
		{"not initialised", errorAnswer(503, "Vault is not initialized"), KindSealed, "", true, true},
		{"no active node", errorAnswer(500, "local node not active but active cluster node not found"), KindFailing, "", true, true},
		{"balancer page", status(502, "<html>Bad Gateway</html>"), KindFailing, "", true, true},
		{"huge error", status(500, huge), KindFailing, "", true, true},
		{"redirect 301", status(301, ""), KindRedirect, "", true, true},
		{"redirect 308", status(308, ""), KindRedirect, "", true, true},
		{"not modified", status(304, ""), KindRedirect, "", true, true},
		{"not JSON", status(200, "<html>Welcome</html>"), KindGarbage, "", false, false},
		{"list", status(200, "[]"), KindGarbage, "", false, false},
		{"string", status(200, `"x"`), KindGarbage, "", false, false},
		{"data of another type", status(200, `{"data":[1]}`), KindGarbage, "", false, false},
		{"data without content", status(200, `{"data":{}}`), KindGarbage, "", false, false},
		{"field of another type", status(200, `{"data":{"challenge":7,"kind":{}}}`), KindGarbage, "", false, false},
		{"empty object", status(200, `{}`), KindGarbage, "", false, false},
		{"nothing", status(204, ""), KindGarbage, "", false, false},
		{"huge", status(200, `{"data":{"challenge":"`+huge+`"}}`), KindGarbage, "", false, false},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, KindUnreachable, "", true, true},
		{"cut off in the body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		}, KindUnreachable, "", true, true},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, KindUnreachable, "", true, true},
		{"slow body", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, KindUnreachable, "", true, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, row.handler)
			client := clientFor(t, n)
			if row.name == "silent" || row.name == "slow body" {
				client.timing.proof = 200 * time.Millisecond
			}
			where := client.Nodes()[0]
			_, _, challengeErr := client.Challenge(t.Context(), challengeRequest())
			_, loginErr := client.Login(t.Context(), where, loginRequest(where))
			for _, err := range []error{challengeErr, loginErr} {
				e := asError(t, err)
				if e.Kind != row.kind || e.Rule != row.rule || e.Retryable() != row.retryable || e.Address != n.URL {
					t.Errorf("%v: kind %s, rule %q, retryable %t", err, e.Kind, e.Rule, e.Retryable())
				}
				if text := err.Error() + e.Hint(); len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("not fit to be shown: %q", text)
				}
			}
			if asError(t, loginErr).StartOver() != row.startOver {
				t.Errorf("start over after %v: want %t", loginErr, row.startOver)
			}
		})
	}
}

// A login is sent once, whatever comes of it.
func TestLoginIsSentOnce(t *testing.T) {
	for _, status := range []int{403, 412, 429, 500, 503} {
		n := newNode(t, errorAnswer(status))
		client := clientFor(t, n)
		client.timing.spacing = time.Millisecond
		_, err := client.Login(t.Context(), client.Nodes()[0], loginRequest(client.Nodes()[0]))
		if e := asError(t, err); e.Status != status || len(n.asked()) != 1 {
			t.Errorf("%v after %d logins", err, len(n.asked()))
		}
	}
}

// An error answer of a sign path is never taken for a refusal of the auth method.
func TestSignHasNoRules(t *testing.T) {
	n := newNode(t, errorAnswer(403, attest.RefusalPrefix+"freshness"))
	client := clientFor(t, n)
	_, err := client.Sign(t.Context(), &Session{Node: client.Nodes()[0]}, "pki", "a.server", nil, time.Hour)
	if e := asError(t, err); e.Kind != KindDenied || e.StartOver() || !strings.Contains(e.Hint(), "omen-host-") {
		t.Errorf("error %v, hint %q", err, e.Hint())
	}
}

func TestServerTextIsCleaned(t *testing.T) {
	n := newNode(t, errorAnswer(400, "bad\x1b[2J\u202e\x00 thing", strings.Repeat("ü", 400)))
	_, _, err := clientFor(t, n).Challenge(t.Context(), challengeRequest())
	e := asError(t, err)
	if len(e.Message) > 300 || !strings.HasPrefix(e.Message, "bad?[2J??") && !strings.HasPrefix(e.Message, "bad?[2J?") {
		t.Errorf("message %q", e.Message)
	}
	if strings.ContainsFunc(e.Message, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("message %q", e.Message)
	}
}

// No redirect is followed, wherever it points.
func TestRedirectIsNotFollowed(t *testing.T) {
	target := newNode(t, healthy)
	for _, code := range []int{301, 302, 303, 307, 308} {
		n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target.URL+r.URL.Path, code)
		})
		client := clientFor(t, n)
		_, _, challengeErr := client.Challenge(t.Context(), challengeRequest())
		token, err := newToken(secretToken)
		if err != nil {
			t.Fatal(err)
		}
		_, signErr := client.Sign(t.Context(), &Session{Token: token, Node: client.Nodes()[0]}, "pki", "a.server", nil, time.Hour)
		for _, err := range []error{challengeErr, signErr} {
			if e := asError(t, err); e.Kind != KindRedirect || e.Status != code {
				t.Errorf("%d: error %v", code, err)
			}
		}
	}
	if asked := target.asked(); len(asked) != 0 {
		t.Errorf("the target was asked %s", asked[0].path)
	}
}

// served makes a node with a certificate of its own.
func served(t *testing.T, change func(*x509.Certificate)) *node {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Some CA"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	n := unstarted(t, healthy)
	n.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	n.StartTLS()
	return n
}

// TestServerNotTrusted has servers that must be told nothing.
func TestServerNotTrusted(t *testing.T) {
	other := newNode(t, healthy)
	plain := unstarted(t, healthy)
	plain.Start()
	expired := served(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	misnamed := served(t, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.example"} })
	unknown := served(t, func(*x509.Certificate) {})
	for _, row := range []struct {
		name string
		n    *node
		ca   string
		sni  string
		kind Kind
	}{
		{"unknown CA", unknown, caFile(t, other), "", KindUnknownCA},
		{"expired", expired, caFile(t, expired), "", KindCertificate},
		{"wrong name", misnamed, caFile(t, misnamed), "", KindCertificate},
		{"not the name configured", unknown, caFile(t, unknown), "openbao.example", KindCertificate},
		{"no TLS", plain, caFile(t, other), "", KindGarbage},
	} {
		t.Run(row.name, func(t *testing.T) {
			address := "https://" + strings.TrimPrefix(strings.TrimPrefix(row.n.URL, "https://"), "http://")
			client := newClient(t, Config{Addresses: []string{address}, CAFile: row.ca, TLSServerName: row.sni, AuthPath: "auth/tpm"})
			_, _, err := client.Challenge(t.Context(), challengeRequest())
			e := asError(t, err)
			if e.Kind != row.kind || e.Retryable() || e.Hint() == "" {
				t.Errorf("error %v, hint %q", err, e.Hint())
			}
			if len(row.n.asked()) != 0 {
				t.Error("a request was sent")
			}
		})
	}
}

// What an unknown server showed is told, with how to pin it.
func TestUnknownCASaysWhatWasServed(t *testing.T) {
	n := served(t, func(c *x509.Certificate) { c.Subject.CommonName = "Evil\x1b[2J CA" })
	pinned := caFile(t, newNode(t, healthy))
	client := newClient(t, Config{Addresses: []string{n.URL}, CAFile: pinned, AuthPath: "auth/tpm"})
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	e := asError(t, err)
	want := fingerprint(n.Certificate().Raw)
	if e.Served == nil || e.Served.SHA256 != want || len(want) != 95 || strings.Contains(e.Served.Subject, "\x1b") {
		t.Fatalf("served %+v, want fingerprint %s", e.Served, want)
	}
	for _, part := range []string{want, pinned, "openssl x509", "Evil"} {
		if !strings.Contains(e.Hint(), part) {
			t.Errorf("hint %q lacks %q", e.Hint(), part)
		}
	}
}

func TestTLSServerName(t *testing.T) {
	n := served(t, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"openbao.example"} })
	client := newClient(t, Config{Addresses: []string{n.URL}, CAFile: caFile(t, n), TLSServerName: "openbao.example", AuthPath: "auth/tpm"})
	_, where, err := client.Challenge(t.Context(), challengeRequest())
	if err != nil {
		t.Fatal(err)
	}
	if where.Audience != n.URL+"||auth/tpm" {
		t.Errorf("audience %s is not the address that was dialled", where.Audience)
	}
}

func TestOldTLSIsNotSpoken(t *testing.T) {
	n := unstarted(t, healthy)
	n.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	n.StartTLS()
	_, _, err := clientFor(t, n).Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindUnreachable || !strings.Contains(e.Message, "tls") {
		t.Errorf("error %v", err)
	}
}

// What a caller asks of an error by errors.Is.
func TestErrorUnwraps(t *testing.T) {
	e := &Error{Op: opSign, Address: "https://a:8200", Kind: KindUnreachable, Err: context.DeadlineExceeded}
	if !errors.Is(fmt.Errorf("step: %w", e), context.DeadlineExceeded) {
		t.Error("cause lost")
	}
}
