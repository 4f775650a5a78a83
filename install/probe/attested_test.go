// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/testca"
)

func TestAgentState(t *testing.T) {
	book := testca.New(t, "book")
	server := pair(t, book, "verifier.test", testca.Server()...)
	var reactivated []string
	address := serve(t, &tls.Config{Certificates: []tls.Certificate{server}}, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /v2.6/agents/d432fbb3":
			io.WriteString(w, `{"results":{"operational_state":7,"attestation_status":"PASS","attestation_count":7,
				"last_successful_attestation":1000,"maximum_attestation_interval":"10s","last_event_id":"internal.verifier.not_reachable",
				"ip":"127.0.0.1","port":9002,"mtls_cert":"disabled"}}`)
		case "PUT /v2.6/agents/d432fbb3/reactivate":
			reactivated = append(reactivated, r.URL.Path)
			io.WriteString(w, `{"results":{}}`)
		default:
			answer(w, r)
		}
	})
	client, err := NewClient(Target{Address: address, Bundle: book.Bundle()}, nil) // by the host name in the address
	if err != nil {
		t.Fatal(err)
	}
	state, err := client.AgentState(t.Context(), "d432fbb3")
	if want := (Attestation{7, "PASS", 7, 1000, "10s", "internal.verifier.not_reachable"}); err != nil || state != want {
		t.Errorf("got %+v, %v", state, err)
	}
	registration, err := client.Registration(t.Context(), "d432fbb3")
	if want := (Registration{"127.0.0.1", 9002, "disabled"}); err != nil || registration != want {
		t.Errorf("got %+v, %v", registration, err)
	}
	if err := client.Reactivate(t.Context(), "d432fbb3"); err != nil || len(reactivated) != 1 {
		t.Errorf("reactivated: %v, %v", reactivated, err)
	}
	var status *StatusError
	if err := client.Reactivate(t.Context(), "another"); !errors.As(err, &status) || status.Method != http.MethodPut {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"", ".", "..", "../agents", "a/b", "a?b", strings.Repeat("a", 81)} {
		if _, err := client.AgentState(t.Context(), name); err == nil {
			t.Errorf("%q is asked for", name)
		}
		if err := client.Reactivate(t.Context(), name); err == nil {
			t.Errorf("%q is reactivated", name)
		}
	}
}

func TestHealthy(t *testing.T) {
	now := time.Unix(2000, 0)
	for name, c := range map[string]struct {
		state Attestation
		want  string
	}{
		"asked just now":          {Attestation{State: 3, Last: 1995, Interval: "10s"}, ""},
		"payload":                 {Attestation{State: 5, Last: 1995, Interval: "1m"}, ""},
		"no interval":             {Attestation{State: 3, Last: 1995}, ""},
		"PASS and failed":         {Attestation{State: 7, Status: "PASS", Last: 1999, Interval: "10s"}, "operational_state 7 (Failed)"},
		"a state of the future":   {Attestation{State: 70, Last: 1999}, "operational_state 70"},
		"PASS and silent":         {Attestation{State: 3, Status: "PASS", Last: 1980, Interval: "10s"}, "20s ago"},
		"silent, strange measure": {Attestation{State: 3, Last: 1980, Interval: "-1h"}, "20s ago"},
	} {
		t.Run(name, func(t *testing.T) { check(t, c.state.Healthy(now), c.want) })
	}
}

func TestGivenUp(t *testing.T) {
	const event = "internal.verifier.not_reachable"
	restart := time.Unix(2000, 0)
	for name, c := range map[string]struct {
		state            Attestation
		givenUp, younger bool
	}{
		"since our restart":       {Attestation{State: 7, Event: event, Last: 1995, Interval: "10s"}, true, true},
		"long after it":           {Attestation{State: 7, Event: event, Last: 9000, Interval: "10s"}, true, true},
		"at the last moment":      {Attestation{State: 7, Event: event, Last: 1990, Interval: "10s"}, true, true},
		"before it":               {Attestation{State: 7, Event: event, Last: 1989, Interval: "10s"}, true, false},
		"never attested":          {Attestation{State: 7, Event: event, Interval: "10s"}, true, false},
		"while it got a key":      {Attestation{State: 7, Event: event + "_v", Last: 1995}, true, true},
		"quote refused":           {Attestation{State: 9, Event: "pcr_validation.invalid_pcr_16", Last: 1995}, false, true},
		"failed for something":    {Attestation{State: 7, Event: "pcr_validation.invalid_pcr_16", Last: 1995}, false, true},
		"well, after a failure":   {Attestation{State: 3, Event: event, Last: 1995}, false, true},
		"retries":                 {Attestation{State: 4, Event: event, Last: 1995}, false, true},
		"terminated by a tenant":  {Attestation{State: 10, Event: event, Last: 1995}, false, true},
		"failed, nobody says why": {Attestation{State: 7, Last: 1995}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.state.GivenUp() != c.givenUp || c.state.WorkedAt(restart) != c.younger {
				t.Errorf("given up %v, younger %v", c.state.GivenUp(), c.state.WorkedAt(restart))
			}
		})
	}
}

func TestRegistration(t *testing.T) {
	book := testca.New(t, "book")
	own := pair(t, book, "agent.test", testca.Server()...)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Leaf.Raw}))
	good := Registration{"127.0.0.1", 9002, text}
	target, err := good.Target(book.Bundle())
	if err != nil || target.Address != "127.0.0.1:9002" || !target.Leaf.Equal(own.Leaf) {
		t.Errorf("got %+v, %v", target, err)
	}
	for name, bad := range map[string]Registration{
		"no mTLS":         {good.IP, good.Port, "disabled"},
		"a key":           {good.IP, good.Port, strings.ReplaceAll(text, "CERTIFICATE", "PRIVATE KEY")},
		"no certificate":  {good.IP, good.Port, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
		"no address":      {"", good.Port, text},
		"a path":          {"127.0.0.1/x", good.Port, text},
		"port 0":          {good.IP, 0, text},
		"port of nowhere": {good.IP, 65536, text},
	} {
		if _, err := bad.Target(book.Bundle()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
