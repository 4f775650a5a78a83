// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		"silent":     silent(t),
	} {
		t.Run(name, func(t *testing.T) {
			good := newNode(t, healthy)
			bad := first()
			client := newClient(t, Config{Addresses: []string{bad.URL, good.URL}, CAFile: caFile(t, good), AuthPath: "auth/tpm"})
			client.timing = timing{budget: 20 * time.Second, attempt: time.Second, proof: time.Second, patience: time.Second, slowness: time.Second, spacing: 50 * time.Millisecond}
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

func silent(t *testing.T) func() *node {
	return func() *node {
		return newNode(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	}
}

// An address that hangs keeps the others waiting for its patience, and not for
// the length of an attempt; an answer that comes late is as good as another.
func TestPassDoesNotHangWithOneAddress(t *testing.T) {
	hangs, good := silent(t)(), newNode(t, healthy)
	client := clientFor(t, hangs, good)
	client.timing = timing{budget: time.Hour, attempt: time.Hour, proof: time.Hour, patience: 20 * time.Millisecond, slowness: 20 * time.Millisecond, spacing: time.Hour}
	if _, where, err := client.Challenge(t.Context(), challengeRequest()); err != nil || where.Address != good.URL {
		t.Errorf("answered by %q, %v", where.Address, err)
	}
	client = clientFor(t, good, hangs)
	client.timing.patience, client.timing.slowness = 0, 0
	if _, where, err := client.Challenge(t.Context(), challengeRequest()); err != nil || where.Address != good.URL {
		t.Errorf("answered by %q, %v", where.Address, err)
	}
}

// What is signed twice is issued twice: no second address is asked beside the
// first.
func TestSignIsNotAskedBesideAnother(t *testing.T) {
	slow := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(100 * time.Millisecond):
			healthy(w, r)
		case <-r.Context().Done():
		}
	})
	other := newNode(t, healthy)
	client := clientFor(t, slow, other)
	client.timing.patience, client.timing.slowness = time.Millisecond, time.Millisecond
	if _, err := client.Sign(t.Context(), &Session{Node: client.Nodes()[0]}, "pki", "a.server", nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if len(other.asked()) != 0 {
		t.Error("a second address was asked")
	}
}

// An address that failed is left alone by the next call too, which says why when
// there is no other.
func TestFailedAddressRests(t *testing.T) {
	dead, good := newNode(t, healthy), newNode(t, healthy)
	client := clientFor(t, dead, good)
	where := client.Nodes()[0]
	dead.Close()
	if _, err := client.Login(t.Context(), where, loginRequest(where)); !asError(t, err).StartOver() {
		t.Fatalf("error %v", err)
	}
	good.Close()
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	e := asError(t, err)
	if e.Kind != KindUnreachable || e.Op != opChallenge || len(e.Others) != 1 {
		t.Errorf("error %v", err)
	}
}

// A call whose time is up before it begins is an error as any other.
func TestPassWithoutTime(t *testing.T) {
	client := clientFor(t, newNode(t, healthy))
	client.timing.budget = -time.Second
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindUnreachable || e.Op != opChallenge || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = clientFor(t, newNode(t, healthy)).Challenge(ctx, challengeRequest())
	if e := asError(t, err); e.Kind != KindCancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A cluster without a leader is asked evenly: each of three addresses once in a
// spacing, and one of them in each third of it.
func TestPassAsksEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &Client{rests: new(rests)}
		client.timing = timing{budget: 30 * time.Second, attempt: 15 * time.Second, proof: 15 * time.Second, patience: 2 * time.Second, slowness: 2 * time.Second, spacing: time.Second}
		nodes := []Node{{Address: "a"}, {Address: "b"}, {Address: "c"}}
		last := map[string]time.Time{}
		var latest time.Time
		asked, start := 0, time.Now()
		_, err := overNodes(t.Context(), client.newPass(opChallenge, nodes), func(_ context.Context, n Node) (int, *Error) {
			now := time.Now()
			if gap := now.Sub(last[n.Address]); gap < time.Second {
				t.Errorf("%s asked again after %s", n.Address, gap)
			}
			if gap := now.Sub(latest); now.Sub(start) > 2*time.Second && gap > 340*time.Millisecond {
				t.Errorf("nobody asked for %s", gap)
			}
			last[n.Address], latest = now, now
			asked++
			return 0, &Error{Op: opChallenge, Address: n.Address, Kind: KindRedirect}
		})
		if e := asError(t, err); e.Kind != KindRedirect || asked < 80 || asked > 90 {
			t.Errorf("%v after %d requests", err, asked)
		}
	})
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
	client.timing = timing{budget: 2 * time.Second, attempt: 2 * time.Second, proof: 2 * time.Second, patience: 2 * time.Second, slowness: 2 * time.Second, spacing: 50 * time.Millisecond}
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
	client.timing = timing{budget: time.Second, attempt: time.Second, proof: time.Second, patience: time.Second, slowness: time.Second, spacing: 150 * time.Millisecond}
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
	client.timing = timing{budget: time.Minute, attempt: 10 * time.Second, proof: 10 * time.Second, patience: 10 * time.Second, slowness: 10 * time.Second, spacing: 50 * time.Millisecond}
	started := time.Now()
	_, _, err := client.Challenge(t.Context(), challengeRequest())
	if e := asError(t, err); e.Kind != KindBusy || len(n.asked()) != 1 || time.Since(started) > 10*time.Second {
		t.Errorf("error %v after %s", err, time.Since(started))
	}
}
