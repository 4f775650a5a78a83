// SPDX-License-Identifier: Apache-2.0

package attacker_test

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"testing"

	"funlab.casa/omen/attest/attacker"
)

// overTLS serves a setting's server as OpenBao would, under a mount in a
// namespace.
func overTLS(t *testing.T, s attacker.Setting) (*httptest.Server, []byte) {
	t.Helper()
	handler, ok := s.Server.(attacker.Handler)
	if !ok {
		t.Fatalf("server is %T", s.Server)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || path.Dir(r.URL.Path) != "/v1/auth/tpm" || r.Header.Get("X-Vault-Namespace") != "ns" {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
			return
		}
		message, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answer, err := handler(r.Context(), path.Base(r.URL.Path), message)
		if err != nil {
			http.Error(w, `{"errors":["`+err.Error()+`"]}`, http.StatusInternalServerError)
			return
		}
		w.WriteHeader(answer.Status)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// The table runs against an address as it does against a function.
func TestAttacksOverHTTP(t *testing.T) {
	s := setting(t, "plain", attacker.P256, true)
	server, roots := overTLS(t, s)
	client, err := attacker.NewHTTP(server.URL+"/", "ns", "/auth/tpm/", roots)
	check(t, err)
	s.Server = client
	for _, a := range attacker.Attacks() {
		switch a.Name {
		case "challenge/used twice", "signature/by another TPM", "challenge/two logins at once", "syntax/request: empty", "clone/reset counter back":
			scene, err := s.Open(t.Context())
			check(t, err)
			if err := a.Run(t.Context(), scene); err != nil {
				t.Errorf("%s: %v", a.Name, err)
			}
		}
	}
}

// Only a server that the given roots vouch for is spoken to; a redirect is an
// answer and is not followed.
func TestHTTPTrustsNobodyElse(t *testing.T) {
	s := setting(t, "plain", attacker.P256, false)
	server, roots := overTLS(t, s)
	tpm := newTPM(t, s.Vendor, attacker.P256)
	other, err := attacker.NewHTTP(server.URL, "ns", "auth/tpm", []byte(s.Vendor.PEM()))
	check(t, err)
	if _, err := tpm.Challenge(t.Context(), other, "plain"); err == nil {
		t.Error("a server that nobody vouches for was believed")
	}
	if _, err := attacker.NewHTTP(server.URL, "ns", "auth/tpm", nil); err == nil {
		t.Error("no roots, and no error")
	}
	lost, err := attacker.NewHTTP(server.URL, "", "auth/tpm", roots)
	check(t, err)
	answer, err := lost.Login(t.Context(), []byte("{}"))
	check(t, err)
	if answer.Status != http.StatusTemporaryRedirect || answer.In() || answer.Rule() != "" {
		t.Errorf("answer %+v", answer)
	}
}
