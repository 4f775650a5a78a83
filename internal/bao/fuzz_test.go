// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

// canned answers every request with the same status and body.
type canned struct {
	status int
	body   string
}

// RoundTrip implements http.RoundTripper.
func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.body)), Request: r}, nil
}

// FuzzAnswer hands the client any answer. It must end in a whole ticket, in a
// session with a token and a host name, or in an *Error that can be shown.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{`{"data":{}}`, `{"auth":{"client_token":"a","lease_duration":1,"metadata":{"host":"a"}}}`,
		`{"errors":["omen: refused: state"]}`, "", "{", "null", `{"data":{"kind":"known","nonce":"AAAA"}}`,
		`{"data":{"ticket":"AAAA","creation_path":""}}`, `{"data":{"ticket":"` + strings.Repeat("A", 43) + `="}}`,
		`{"data":{"renew_after":60},"auth":{"client_token":"a","lease_duration":1,"metadata":{"host":"a"}}}`} {
		f.Add(200, body)
		f.Add(403, body)
		f.Add(404, body)
	}
	n := httptest.NewTLSServer(nil)
	n.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate().Raw})
	common := newClient(f, Config{Addresses: []string{"https://a:8200"}, CAFile: writeFile(f, ca), AuthPath: "auth/tpm"})
	common.timing = timing{budget: time.Millisecond, attempt: time.Second, proof: time.Second, patience: time.Second, slowness: time.Second, spacing: time.Second}
	wrapped, err := NewToken([]byte(secretToken))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		client := *common
		inner, err := newAPIClient("https://a:8200", "", canned{status, body})
		if err != nil {
			t.Fatal(err)
		}
		client.api, client.rests = inner, new(rests)
		where := client.Nodes()[0]
		if _, _, err := client.Challenge(t.Context(), challengeRequest()); err != nil {
			_ = asError(t, err)
		}
		ticket, err := client.openTicket(t.Context(), wrapped, where, "")
		if err == nil && len(ticket) != attest.TicketSize {
			t.Errorf("a ticket of %d bytes", len(ticket))
		} else if err != nil {
			_ = asError(t, err)
		}
		session, err := client.Login(t.Context(), where, loginRequest(where))
		if err == nil && (session.Token.header() == "" || session.Host == "") {
			t.Errorf("session %+v", session)
		}
		if err != nil {
			if text := asError(t, err).Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error text %q", text)
			}
		}
	})
}
