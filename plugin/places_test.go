// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Those that wait go in the order in which they came, three logins before each
// challenge; one that gave up is not waited for.
func TestPlacesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &places{free: 1}
		leave, err := p.enter(t.Context(), false)
		check(t, err)
		var order []string
		gone, give := context.WithCancel(t.Context())
		for _, who := range []string{"c1", "c2", "c gone", "c3", "l1", "l gone", "l2", "l3", "l4", "l5"} {
			ctx := t.Context()
			if strings.HasSuffix(who, "gone") {
				ctx = gone
			}
			go func() {
				leave, err := p.enter(ctx, who[0] == 'l')
				if ctx == gone {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("%s: %v", who, err)
					}
					return
				}
				check(t, err)
				order = append(order, who)
				leave()
			}()
			synctest.Wait()
		}
		give()
		synctest.Wait()
		leave()
		synctest.Wait()
		if want := []string{"l1", "l2", "l3", "c1", "l4", "l5", "c2", "c3"}; !slices.Equal(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
		if p.free != 1 {
			t.Errorf("%d places are free, want 1", p.free)
		}
		if _, err := p.enter(gone, true); !errors.Is(err, context.Canceled) || p.free != 1 {
			t.Errorf("who is gone before enters: %v, %d free", err, p.free)
		}
	})
}

// Thousands come and go; no more work at once than there are places, and no place
// is lost to those who give up in the moment of their turn.
func TestPlacesAreKept(t *testing.T) {
	p := &places{free: 4}
	var working, in, out atomic.Int64
	var all sync.WaitGroup
	for i := range 4000 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				go cancel()
			}
			leave, err := p.enter(ctx, i%2 == 0)
			if err != nil {
				out.Add(1)
				return
			}
			if n := working.Add(1); n > 4 {
				t.Errorf("%d work at once", n)
			}
			in.Add(1)
			working.Add(-1)
			leave()
		})
	}
	all.Wait()
	if p.free != 4 || p.logins.Len() != 0 || p.challenges.Len() != 0 || in.Load()+out.Load() != 4000 || in.Load() < 2666 {
		t.Errorf("%d free, %d and %d wait, %d in, %d out", p.free, p.logins.Len(), p.challenges.Len(), in.Load(), out.Load())
	}
}
