// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A node is seen when its kernel answers, and on a connection that is kept.
func TestSeen(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hangs.Close() }()
	good, dead := newNode(t, healthy), newNode(t, healthy)
	dead.Close()
	client := newClient(t, Config{
		Addresses: []string{"https://" + hangs.Addr().String(), good.URL, dead.URL}, CAFile: caFile(t, good), AuthPath: "auth/tpm",
	})
	if look(t, client, client.Nodes()[2]) {
		t.Error("a dead node is seen")
	}
	for _, node := range []Node{client.Nodes()[0], client.Nodes()[1], client.Nodes()[1]} {
		if !look(t, client, node) {
			t.Errorf("%s is not seen", node.Address)
		}
	}
}

// look asks a node until it is seen or the call ends.
func look(t *testing.T, client *Client, node Node) bool {
	t.Helper()
	a := &asking{node: node}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.health(a.watch(ctx), node)
	}()
	for !a.seen.Load() {
		select {
		case <-ended:
			cancel()
			return a.seen.Load()
		default:
			runtime.Gosched()
		}
	}
	cancel()
	<-ended
	return true
}

// Beside a node that is not seen another is asked soon, beside one that is, late;
// whoever is asked in time may answer when no other would be asked any more.
func TestPatience(t *testing.T) {
	for name, row := range map[string]struct {
		seen          bool
		answersIn     time.Duration
		from, through time.Duration // when the second node is asked; 0: never
	}{
		"dead":          {false, time.Hour, 2 * time.Second, 2 * time.Second},
		"busy":          {true, 19 * time.Second, 0, 0},
		"busy for long": {true, 50 * time.Second, 20 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &Client{rests: new(rests), timing: ofClient}
				began, second := time.Now(), time.Duration(0)
				pass := client.newPass(opChallenge, []Node{{Address: "first"}, {Address: "second"}})
				where, err := overNodes(t.Context(), pass, func(ctx context.Context, n Node) (string, *Error) {
					answersIn := 45 * time.Second
					if n.Address == "first" {
						pass.latest.seen.Store(row.seen)
						answersIn = row.answersIn
					} else {
						second = time.Since(began)
					}
					select {
					case <-time.After(answersIn):
						return n.Address, nil
					case <-ctx.Done():
						return "", &Error{Kind: KindUnreachable}
					}
				})
				if err != nil || (where == "first") != (row.answersIn < time.Hour) {
					t.Errorf("answered by %s: %v", where, err)
				}
				if second < row.from || second > row.through {
					t.Errorf("second asked after %s, want %s to %s", second, row.from, row.through)
				}
			})
		})
	}
}

// A node that takes all of its time for nothing is not asked again before the
// others were.
func TestPassComesToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &Client{rests: new(rests), timing: ofClient}
		client.timing.proof = 3 * time.Second // below its patience, above spacing
		pass := client.newPass(opChallenge, []Node{{Address: "stuck"}, {Address: "good"}})
		var asked atomic.Int64
		where, err := overNodes(t.Context(), pass, func(ctx context.Context, n Node) (string, *Error) {
			if n.Address == "good" {
				return n.Address, nil
			}
			asked.Add(1)
			pass.latest.seen.Store(true)
			<-ctx.Done()
			return "", &Error{Kind: KindUnreachable}
		})
		if err != nil || where != "good" || asked.Load() != 1 {
			t.Errorf("answered by %q, stuck asked %d times: %v", where, asked.Load(), err)
		}
	})
}

// A login is waited for as long as its challenge is good, other calls are not.
func TestHowLongARequestMayTake(t *testing.T) {
	for op, want := range map[string]time.Duration{
		opChallenge: time.Minute, opLogin: time.Minute, opSign: 15 * time.Second, opUnwrap: 15 * time.Second,
	} {
		if got := ofClient.of(op); got != want {
			t.Errorf("%s: %s, want %s", op, got, want)
		}
	}
	slow := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(300 * time.Millisecond):
			healthy(w, r)
		case <-r.Context().Done():
		}
	})
	client := clientFor(t, slow)
	client.timing.budget, client.timing.attempt = 100*time.Millisecond, 50*time.Millisecond
	if _, _, err := client.Challenge(t.Context(), challengeRequest()); err != nil {
		t.Errorf("challenge that is answered after the budget: %v", err)
	}
}
