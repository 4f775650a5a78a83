// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"crypto/x509"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The first address is bad, the second good: the call succeeds at the second.
func TestPassGoesOn(t *testing.T) {
	other := served(t, func(*x509.Certificate) {})
	for name, first := range map[string]func() *node{
		"dead": func() *node {
			n := newNode(t, healthy)
			n.Close()
			return n
		},
		"sealed":     func() *node { return newNode(t, errorAnswer(503, "Vault is sealed")) },
		"redirect":   func() *node { return newNode(t, errorAnswer(307)) },
		"behind":     func() *node { return newNode(t, errorAnswer(412)) },
		"garbage":    func() *node { return newNode(t, errorAnswer(200)) },
		"unknown CA": func() *node { return other },
		"silent": func() *node {
			return newNode(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := newNode(t, healthy)
			bad := first()
			client := newClient(t, Config{Addresses: []string{bad.URL, good.URL}, CAFile: caFile(t, good), AuthPath: "auth/tpm"})
			client.timing = timing{budget: 20 * time.Second, attempt: time.Second, spacing: 50 * time.Millisecond}
			_, where, err := client.Challenge(t.Context(), challengeRequest())
			if err != nil {
				t.Fatal(err)
			}
			if where != client.Nodes()[1] {
				t.Errorf("answered by %s", where.Address)
			}
		})
	}
}

// A final answer of one node is the answer of the cluster.
func TestPassStopsAtAFinalAnswer(t *testing.T) {
	refusing, good := newNode(t, errorAnswer(403, "omen: refused: role")), newNode(t, healthy)
	client := clientFor(t, refusing, good)
	client.timing.spacing = time.Millisecond
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindRefused || e.Rule != "role" {
		t.Errorf("error %v", err)
	}
	if len(good.asked()) != 0 {
		t.Error("the next address was asked")
	}
}

// A node that is not ours is asked once, the others until time is up; the error
// tells of all.
func TestPassReportsAll(t *testing.T) {
	sealed := newNode(t, errorAnswer(503, "Vault is sealed"))
	garbage := newNode(t, errorAnswer(200))
	dead := newNode(t, healthy)
	client := clientFor(t, garbage, dead, sealed)
	dead.Close()
	client.timing = timing{budget: 2 * time.Second, attempt: 2 * time.Second, spacing: 50 * time.Millisecond}
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	e := asError(t, err)
	if e.Kind != KindSealed || !strings.Contains(err.Error(), garbage.URL+": garbage") || !strings.Contains(err.Error(), dead.URL+": unreachable") {
		t.Errorf("error %v", err)
	}
	if len(garbage.asked()) != 1 || len(sealed.asked()) < 2 {
		t.Errorf("garbage asked %d times, sealed %d times", len(garbage.asked()), len(sealed.asked()))
	}
}

// One address is asked at most once per spacing, whatever the jitter.
func TestPassKeepsItsDistance(t *testing.T) {
	n := newNode(t, errorAnswer(500))
	client := clientFor(t, n)
	client.timing = timing{budget: time.Second, attempt: time.Second, spacing: 150 * time.Millisecond}
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindFailing {
		t.Errorf("error %v", err)
	}
	if asked := len(n.asked()); asked < 2 || asked > 7 {
		t.Errorf("asked %d times in 1 s, spacing 150 ms", asked)
	}
}

// A node that says when to come back is not asked before.
func TestRetryAfter(t *testing.T) {
	var first, second atomic.Int64
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(0, time.Now().UnixNano()) {
			w.Header().Set("Retry-After", "1")
			errorAnswer(429, "quota")(w, r)
			return
		}
		second.Store(time.Now().UnixNano())
		healthy(w, r)
	})
	client := clientFor(t, n)
	client.timing.spacing = 50 * time.Millisecond
	if _, _, err := client.Challenge(t.Context(), challengeRequest()); err != nil {
		t.Fatal(err)
	}
	if waited := time.Duration(second.Load() - first.Load()); waited < time.Second {
		t.Errorf("asked again after %s", waited)
	}
}

// Where all say to come back after time is up, nobody waits.
func TestRetryAfterTooLong(t *testing.T) {
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		errorAnswer(429, "quota")(w, r)
	})
	client := clientFor(t, n)
	client.timing = timing{budget: time.Minute, attempt: 10 * time.Second, spacing: 50 * time.Millisecond}
	started := time.Now()
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindBusy || len(n.asked()) != 1 || time.Since(started) > 10*time.Second {
		t.Errorf("error %v after %s", err, time.Since(started))
	}
}
