// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

// request is what a fake node was asked.
type request struct {
	method, path string
	header       http.Header
	body         []byte
}

// node is a TLS server that answers as its handler says and keeps what it was
// asked. It stands in for answers that a real OpenBao gives only on a bad day.
type node struct {
	*httptest.Server
	mutex    sync.Mutex
	requests []request
}

func newNode(t *testing.T, handler http.HandlerFunc) *node {
	t.Helper()
	n := unstarted(t, handler)
	n.StartTLS()
	return n
}

// unstarted makes a node that does not listen yet.
func unstarted(t *testing.T, handler http.HandlerFunc) *node {
	t.Helper()
	n := &node{}
	n.Server = httptest.NewUnstartedServer(n.recording(handler))
	n.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(n.Close)
	return n
}

func (n *node) recording(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n.mutex.Lock()
		n.requests = append(n.requests, request{r.Method, r.URL.Path, r.Header.Clone(), body})
		n.mutex.Unlock()
		handler(w, r)
	}
}

func (n *node) asked() []request {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return append([]request(nil), n.requests...)
}

// caFile writes the CA of a fake node; all of them have the same one.
func caFile(t *testing.T, n *node) string {
	t.Helper()
	return writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate().Raw}))
}

func writeFile(t testing.TB, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// onePass asks every address once: none may be asked again before time is up.
var onePass = timing{budget: 20 * time.Second, attempt: 10 * time.Second, proof: 10 * time.Second, patience: 10 * time.Second, slowness: 10 * time.Second, spacing: time.Hour}

func clientFor(t *testing.T, nodes ...*node) *Client {
	t.Helper()
	config := Config{CAFile: caFile(t, nodes[0]), AuthPath: "auth/tpm"}
	for _, n := range nodes {
		config.Addresses = append(config.Addresses, n.URL)
	}
	return newClient(t, config)
}

func newClient(t testing.TB, config Config) *Client {
	t.Helper()
	client, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	client.timing = onePass
	return client
}

func challengeRequest() attest.ChallengeRequest {
	return attest.ChallengeRequest{V: attest.Version, Role: "keylime", EKCertificate: []byte{1}, AKPublic: []byte{2}}
}

func loginRequest(n Node) attest.LoginRequest {
	return attest.LoginRequest{V: attest.Version, Role: "keylime", Challenge: []byte{1}, Audience: n.Audience,
		Quote: []byte{2}, Signature: []byte{3}, EventLogHash: make([]byte, sha256.Size)}
}

var goodChallenge = &attest.Challenge{
	Challenge:    []byte("sealed"),
	PCRSelection: attest.Selection{Bank: "sha256", PCRs: []int{0, 7}},
	Kind:         attest.KindKnown,
	Nonce:        bytes.Repeat([]byte{7}, attest.SecretSize),
}

// respond writes an answer of OpenBao with status 200.
func respond(w http.ResponseWriter, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// errorAnswer writes an error answer of OpenBao.
func errorAnswer(status int, texts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": texts})
	}
}

// healthy answers every call as OpenBao does.
func healthy(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/challenge"):
		respond(w, map[string]any{"request_id": "1", "data": goodChallenge})
	case strings.HasSuffix(r.URL.Path, "/login"):
		respond(w, map[string]any{"request_id": "2", "auth": map[string]any{
			"client_token": secretToken, "lease_duration": 120,
			"metadata": map[string]string{"host": "spire", "role": "keylime"},
		}})
	case strings.Contains(r.URL.Path, "/sign/"):
		respond(w, map[string]any{"request_id": "3", "data": map[string]any{
			"certificate": "leaf", "issuing_ca": "int", "ca_chain": []string{"int", "root"}, "serial_number": "01"}})
	case r.URL.Path == "/v1/sys/health":
		respond(w, map[string]any{"initialized": true, "sealed": false, "standby": true, "version": "2.7.2",
			"server_time_utc": time.Now().Unix()})
	default:
		errorAnswer(http.StatusNotFound, "no handler for route")(w, r)
	}
}

const secretToken = "b.AAAAAQ-secret-token-of-the-test"
