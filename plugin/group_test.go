// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"
)

// Hundreds of logins at once share transactions, each hears about its own writes
// only, and what one cannot write takes nothing from the others.
func TestGroupedWrites(t *testing.T) {
	s := storages(t)["transactional"]
	var transactions atomic.Int64
	first := make(chan struct{})
	g := &group{change: func(ctx context.Context, s logical.Storage, do func(logical.Storage) error) error {
		if transactions.Add(1) == 1 {
			<-first
		}
		return logical.WithTransaction(ctx, s, do)
	}}
	const logins, bad = 300, 217
	var wg sync.WaitGroup
	for i := range logins {
		wg.Go(func() {
			err := g.do(s, []write{
				func(ctx context.Context, s logical.Storage) error { return save(ctx, s, fmt.Sprintf("a/%d", i), i) },
				func(ctx context.Context, s logical.Storage) error {
					if i == bad {
						return errBroken
					}
					return save(ctx, s, fmt.Sprintf("b/%d", i), i)
				},
			})
			if (i == bad) != errors.Is(err, errBroken) {
				t.Errorf("login %d: %v", i, err)
			}
		})
	}
	close(first)
	wg.Wait()
	for i := range logins {
		for _, prefix := range []string{"a", "b"} {
			entry, err := s.Get(t.Context(), fmt.Sprintf("%s/%d", prefix, i))
			check(t, err)
			if (entry != nil) != (i != bad) {
				t.Errorf("%s/%d stored: %v", prefix, i, entry != nil)
			}
		}
	}
	if n := transactions.Load(); n >= logins {
		t.Errorf("%d transactions for %d logins", n, logins)
	}
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		g.mu.Lock()
		running := g.running
		g.mu.Unlock()
		if !running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("still running, for nobody")
		}
	}
}
