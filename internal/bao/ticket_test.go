// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
)

var ticketBytes = bytes.Repeat([]byte{0x71}, attest.TicketSize)

// wrap has the real server wrap data for ttl, as an operator in namespace does.
func (o *openBao) wrap(t *testing.T, namespace, path string, data map[string]any, ttl string) Token {
	t.Helper()
	admin := o.admin.WithNamespace(namespace)
	admin.SetWrappingLookupFunc(func(string, string) string { return ttl })
	secret, err := admin.Logical().WriteWithContext(t.Context(), path, data)
	if err != nil {
		t.Fatal(err)
	}
	token, err := NewToken([]byte(secret.WrapInfo.Token))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const (
	wrapPath = "sys/wrapping/wrap"
	minute   = "1m"
)

// testTickets opens what the real server wrapped.
func (s *signing) testTickets(t *testing.T) {
	here := s.client.Nodes()[0]
	good := map[string]any{"ticket": base64.StdEncoding.EncodeToString(ticketBytes), "expires": "soon"}
	wrapped := s.server.wrap(t, "", wrapPath, good, minute)

	_, err := s.client.OpenTicket(t.Context(), wrapped, here)
	e := asError(t, err)
	if e.Spent() || e.StartOver() || e.Kind != KindRejected || !strings.Contains(e.Hint(), "tell the operator") ||
		!strings.Contains(e.Error(), `made by "sys/wrapping/wrap", not by "auth/tpm/ticket"`) {
		t.Errorf("swapped token: %v, hint %q", err, e.Hint())
	}
	ticket, err := s.client.openTicket(t.Context(), wrapped, here, wrapPath)
	if err != nil || !bytes.Equal(ticket, ticketBytes) {
		t.Fatalf("a refused token must not be spent: %v", err)
	}
	expired := s.server.wrap(t, "", wrapPath, good, "1s")
	s.await(t, expired)
	nonsense, err := NewToken([]byte("s.nonsense"))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]Token{"opened before": wrapped, "expired": expired, "never was": nonsense} {
		_, err := s.client.openTicket(t.Context(), token, here, wrapPath)
		if e := asError(t, err); !e.Spent() || e.StartOver() || !strings.Contains(e.Hint(), "somebody else may have read it") {
			t.Errorf("%s: %v, hint %q", name, err, e.Hint())
		}
	}
	for name, data := range map[string]map[string]any{
		"short": {"ticket": "AAAA"}, "no ticket": {"foo": "bar"}, "a number": {"ticket": 7}, "no base64": {"ticket": "!"},
	} {
		_, err := s.client.openTicket(t.Context(), s.server.wrap(t, "", wrapPath, data, minute), here, wrapPath)
		if e := asError(t, err); e.Kind != KindGarbage || e.Spent() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// await waits until the server knows a token no more.
func (s *signing) await(t *testing.T, wrapped Token) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := s.client.call(opLookup, s.client.Nodes()[0]).creationPath(t.Context(), wrapped)
		if err != nil && err.Spent() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the token does not expire")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// testTicketPaths: a mount in a namespace has the same path there as one in the
// root namespace, and a client of the namespace opens what comes from it.
func (s *signing) testTicketPaths(t *testing.T) {
	s.server.write(t, "sys/namespaces/team", nil)
	for _, namespace := range []string{"", "team"} {
		admin := s.server.admin.WithNamespace(namespace)
		if err := admin.Sys().EnableAuthWithOptionsWithContext(t.Context(), "ticket", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Logical().WriteWithContext(t.Context(), "auth/ticket/role/x", map[string]any{"token_ttl": "1m"}); err != nil {
			t.Fatal(err)
		}
		wrapped := s.server.wrap(t, namespace, "auth/ticket/role/x/secret-id", nil, minute)
		client := newClient(t, Config{Addresses: []string{s.server.address}, CAFile: s.server.caFile, Namespace: namespace, AuthPath: "auth/ticket"})
		_, err := client.openTicket(t.Context(), wrapped, client.Nodes()[0], "auth/ticket/role/x/secret-id")
		if e := asError(t, err); e.Kind != KindGarbage || !strings.Contains(e.Message, "no ticket") {
			t.Errorf("namespace %q: %v", namespace, err)
		}
	}
}

// wrapping is a fake node's answer to the two calls about a wrapping token.
func wrapping(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/sys/wrapping/lookup" {
		respond(w, map[string]any{"data": map[string]any{"creation_path": "auth/tpm/ticket"}})
		return
	}
	respond(w, map[string]any{"data": map[string]any{"ticket": base64.StdEncoding.EncodeToString(ticketBytes)}})
}

var unknownToken = errorAnswer(400, "wrapping token is not valid or does not exist")

func wrappedForTest(t *testing.T) Token {
	t.Helper()
	token, err := NewToken([]byte(secretToken))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A node that is behind its peers is no proof that a ticket was stolen.
func TestTicketUnknownAtOneNode(t *testing.T) {
	behind, good := newNode(t, unknownToken), newNode(t, wrapping)
	client := clientFor(t, behind, good)
	ticket, err := client.OpenTicket(t.Context(), wrappedForTest(t), client.Nodes()[0])
	if err != nil || !bytes.Equal(ticket, ticketBytes) {
		t.Fatalf("%v", err)
	}
	for _, r := range append(behind.asked(), good.asked()...) {
		if r.header.Get("X-Vault-Token") != secretToken || len(r.body) != 0 {
			t.Errorf("%s: token %q, body %q", r.path, r.header.Get("X-Vault-Token"), r.body)
		}
	}
	if asked := good.asked(); len(asked) != 2 || asked[1].path != "/v1/sys/wrapping/unwrap" {
		t.Errorf("asked %v", asked)
	}
}

// Spent is what tells most, whatever else answered.
func TestTicketSpentBesideADeadNode(t *testing.T) {
	dead := newNode(t, healthy)
	client := clientFor(t, dead, newNode(t, unknownToken))
	dead.Close()
	_, err := client.OpenTicket(t.Context(), wrappedForTest(t), client.Nodes()[0])
	if e := asError(t, err); !e.Spent() || strings.Contains(e.Error()+e.Hint(), secretToken) {
		t.Errorf("error %v", err)
	}
}

// When nobody answers, the conversation may begin again.
func TestTicketWithoutAnAnswer(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"sealed": errorAnswer(503, "Vault is sealed"), "redirect": errorAnswer(307),
		"lost": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/unwrap") {
				panic(http.ErrAbortHandler)
			}
			wrapping(w, r)
		},
	} {
		client := clientFor(t, newNode(t, handler))
		_, err := client.OpenTicket(t.Context(), wrappedForTest(t), client.Nodes()[0])
		if e := asError(t, err); e.Spent() || !e.StartOver() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewTokenRefuses(t *testing.T) {
	for _, text := range []string{"", "a b", "a\n", "\x1b", "é", strings.Repeat("x", 8<<10+1)} {
		if _, err := NewToken([]byte(text)); err == nil || len(text) > 1 && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRenewAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`3600`: time.Hour, `0`: 0, `-1`: 0, `1.5`: 0, `"3600"`: 0, `null`: 0, `[]`: 0, `1e3`: 0, `99999999999999999999`: 0, `4000000000`: 0,
	} {
		n := newNode(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"data":{"renew_after":` + text + `},"auth":{"client_token":"b.x","lease_duration":1,"metadata":{"host":"spire"}}}`))
		})
		client := clientFor(t, n)
		session, err := client.Login(t.Context(), client.Nodes()[0], loginRequest(client.Nodes()[0]))
		if err != nil || session.RenewAfter != want {
			t.Errorf("%s: %+v, %v", text, session, err)
		}
	}
}

// The largest login of the protocol gets to a real server's auth method.
func (s *signing) testLargestLogin(t *testing.T) {
	s.server.write(t, "sys/auth/large", map[string]any{"type": "approle"})
	client := newClient(t, Config{Addresses: []string{s.server.address}, CAFile: s.server.caFile, AuthPath: "auth/large"})
	client.timing = s.client.timing
	where := client.Nodes()[0]
	request := loginRequest(where)
	request.PCRs, request.EventLog = [][]byte{make([]byte, 32)}, make([]byte, attest.MaxEventLog)
	_, err := client.Login(t.Context(), where, request)
	if e := asError(t, err); !strings.Contains(e.Message, "role_id") {
		t.Errorf("%v", err)
	}
}
