// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The whole conversation, and what each request carries.
func TestConversation(t *testing.T) {
	n := newNode(t, healthy)
	client := newClient(t, Config{Addresses: []string{n.URL}, CAFile: caFile(t, n), Namespace: "/team/a/", AuthPath: "/auth/tpm/"})
	challenge, where, err := client.Challenge(t.Context(), challengeRequest())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goodChallenge, challenge); diff != "" {
		t.Errorf("challenge (-want +got):\n%s", diff)
	}
	if want := n.URL + "|team/a/|auth/tpm"; where.Audience != want || where.Address != n.URL {
		t.Errorf("node %+v, want audience %s", where, want)
	}
	session, err := client.Login(t.Context(), where, loginRequest(where))
	if err != nil {
		t.Fatal(err)
	}
	if session.Host != "spire" || session.TTL != 2*time.Minute || session.Metadata["role"] != "keylime" || session.Node != where {
		t.Errorf("session %+v", session)
	}
	signed, err := client.Sign(t.Context(), session, "pki_int", "spire.server", []byte("csr"), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Signed{"leaf", "int", []string{"int", "root"}}, signed); diff != "" {
		t.Errorf("signed (-want +got):\n%s", diff)
	}
	checkRequests(t, n.asked())
}

func checkRequests(t *testing.T, asked []request) {
	t.Helper()
	var paths []string
	for i, r := range asked {
		paths = append(paths, r.method+" "+r.path)
		token := r.header.Get("X-Vault-Token")
		if want := map[bool]string{true: secretToken}[i == 2]; token != want {
			t.Errorf("%s carries the token %q, want %q", r.path, token, want)
		}
		if got := r.header.Get("X-Vault-Namespace"); got != "team/a" {
			t.Errorf("%s: namespace %q", r.path, got)
		}
		if got := r.header.Values("X-Vault-Inconsistent"); !slices.Equal(got, []string{"await-state", "forward-active-node"}) {
			t.Errorf("%s: consistency %q", r.path, got)
		}
	}
	want := []string{"PUT /v1/auth/tpm/challenge", "PUT /v1/auth/tpm/login", "PUT /v1/pki_int/sign/spire.server"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Fatalf("requests (-want +got):\n%s", diff)
	}
	var parameters map[string]any
	if err := json.Unmarshal(asked[2].body, &parameters); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"csr": "csr", "ttl": "86400s", "format": "pem"}, parameters); diff != "" {
		t.Errorf("sign parameters (-want +got):\n%s", diff)
	}
}

// The storage index of one node's answer goes to whichever node is asked next.
func TestIndexGoesToOtherNodes(t *testing.T) {
	first := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Vault-Index", "aW5kZXg=")
		healthy(w, r)
	})
	second := newNode(t, healthy)
	client := clientFor(t, first, second)
	if _, _, err := client.Challenge(t.Context(), challengeRequest()); err != nil {
		t.Fatal(err)
	}
	session := &Session{Node: client.Nodes()[1]}
	if _, err := client.Sign(t.Context(), session, "pki", "a.server", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if len(first.asked()) != 1 || len(second.asked()) != 1 {
		t.Fatalf("requests: %d and %d; Sign must begin at the session's node", len(first.asked()), len(second.asked()))
	}
	if got := second.asked()[0].header.Get("X-Vault-Index"); got != "aW5kZXg=" {
		t.Errorf("index %q", got)
	}
}

func TestSignRefusesOddPaths(t *testing.T) {
	n := newNode(t, healthy)
	client := clientFor(t, n)
	session := &Session{Node: client.Nodes()[0]}
	for _, row := range [][2]string{
		{"pki_int/../sys", "a.server"}, {"pki_int", "../issue/a"}, {"pki_int", "a/b"}, {"", "a.server"}, {"pki_int", ""},
		{"pki int", "a.server"}, {"pki_int", "a.server?x"}, {"pki_int", "a%2fb"}, {"pki_int", ".."}, {"pki_int", "a\n"},
	} {
		if _, err := client.Sign(t.Context(), session, row[0], row[1], nil, time.Hour); err == nil {
			t.Errorf("path %q, role %q: accepted", row[0], row[1])
		}
	}
	if len(n.asked()) != 0 {
		t.Errorf("%d requests were sent", len(n.asked()))
	}
}

func TestCallsCheckTheirRequest(t *testing.T) {
	n := newNode(t, healthy)
	client := clientFor(t, n)
	incomplete := challengeRequest()
	incomplete.AKPublic = nil
	if _, _, err := client.Challenge(t.Context(), incomplete); err == nil {
		t.Error("challenge: incomplete request sent")
	}
	here := client.Nodes()[0]
	elsewhere := Node{Address: "https://other:8200", Audience: "https://other:8200||auth/tpm"}
	for name, login := range map[string]func() error{
		"unknown node": func() error {
			_, err := client.Login(t.Context(), elsewhere, loginRequest(elsewhere))
			return err
		},
		"audience of another node": func() error {
			_, err := client.Login(t.Context(), here, loginRequest(elsewhere))
			return err
		},
	} {
		if login() == nil {
			t.Errorf("%s: login sent", name)
		}
	}
	if len(n.asked()) != 0 {
		t.Errorf("%d requests were sent", len(n.asked()))
	}
}

// Answers to a login that are no session.
func TestLoginRefusesOddSessions(t *testing.T) {
	good := func() map[string]any {
		return map[string]any{"client_token": secretToken, "lease_duration": 120, "metadata": map[string]string{"host": "spire"}}
	}
	for name, change := range map[string]func(auth map[string]any){
		"no token":            func(a map[string]any) { delete(a, "client_token") },
		"token with newline":  func(a map[string]any) { a["client_token"] = "a\nb" },
		"endless token":       func(a map[string]any) { a["client_token"] = fmt.Sprintf("%09000d", 1) },
		"no lifetime":         func(a map[string]any) { delete(a, "lease_duration") },
		"no host":             func(a map[string]any) { delete(a, "metadata") },
		"host with dot":       func(a map[string]any) { a["metadata"] = map[string]string{"host": "spire.server"} },
		"host with slash":     func(a map[string]any) { a["metadata"] = map[string]string{"host": "a/b"} },
		"host in upper case":  func(a map[string]any) { a["metadata"] = map[string]string{"host": "Spire"} },
		"metadata of numbers": func(a map[string]any) { a["metadata"] = map[string]int{"host": 1} },
	} {
		t.Run(name, func(t *testing.T) {
			auth := good()
			change(auth)
			n := newNode(t, func(w http.ResponseWriter, _ *http.Request) { respond(w, map[string]any{"auth": auth}) })
			client := clientFor(t, n)
			session, err := client.Login(t.Context(), client.Nodes()[0], loginRequest(client.Nodes()[0]))
			if e := asError(t, err); e.Kind != KindGarbage || session != nil {
				t.Errorf("session %v, error %v", session, err)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	good := newNode(t, healthy)
	sealed := newNode(t, func(w http.ResponseWriter, _ *http.Request) {
		respond(w, map[string]any{"initialized": true, "sealed": true, "version": "2.7.2\x1b[2J"})
	})
	dead := newNode(t, healthy)
	client := clientFor(t, good, sealed, dead)
	dead.Close()
	got := client.Health(t.Context())
	if len(got) != 3 {
		t.Fatalf("%d answers", len(got))
	}
	if h := got[0]; h.Err != nil || !h.Initialized || h.Sealed || !h.Standby || h.Version != "2.7.2" || h.ClockOffset.Abs() > 5*time.Second {
		t.Errorf("good node: %+v", h)
	}
	if h := got[1]; h.Err != nil || !h.Sealed || h.Version != "2.7.2?[2J" {
		t.Errorf("sealed node: %+v", h)
	}
	if h := got[2]; h.Err == nil || h.Err.Kind != KindUnreachable || h.Err.Op != "health" {
		t.Errorf("dead node: %+v", h)
	}
}

// Cancelled between two passes.
func TestCancelWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		errorAnswer(503, "Vault is sealed")(w, r)
		time.AfterFunc(20*time.Millisecond, cancel)
	})
	client := clientFor(t, n)
	client.timing = timing{budget: time.Minute, attempt: time.Second, proof: time.Second, patience: time.Second, slowness: time.Second, spacing: 10 * time.Second}
	_, _, err := client.Challenge(ctx, challengeRequest())
	if e := asError(t, err); e.Kind != KindCancelled || e.Retryable() || e.Op != opChallenge {
		t.Errorf("error %v", err)
	}
}

// Cancelled while a node is asked.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := newNode(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, _, err := clientFor(t, n).Challenge(ctx, challengeRequest())
	if e := asError(t, err); e.Kind != KindCancelled || e.Retryable() || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
