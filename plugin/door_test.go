// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// OpenBao stores a wrapped answer for as long as the request says: a stranger
// gets none.
func TestWrappedChallengeIsRefused(t *testing.T) {
	w := newPlainWorld(t)
	request := func(path string, data map[string]any) (*logical.Response, error) {
		return w.b.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: path, Data: data, Storage: w.s,
			WrapInfo: &logical.RequestWrapInfo{TTL: time.Second},
		})
	}
	resp, err := request(challengePath, body(t, w.spire.Request("keylime")))
	wantRefusal(t, err, attest.RuleSyntax)
	if resp != nil {
		t.Errorf("response %+v", resp)
	}
	resp, err = request(loginPath, body(t, w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)))
	check(t, err)
	if resp.Auth == nil {
		t.Error("a wrapped login gives no token")
	}
}

// token_bound_cidrs says who may log in, too, and not only who may use a token.
func TestBoundAddressesLogIn(t *testing.T) {
	w := newPlainWorld(t) // speaks from 192.0.2.7
	w.write("role/keylime", map[string]any{"token_bound_cidrs": "198.51.100.0/24"})
	w.out(w.spire, "keylime", attest.RuleRole)
	w.write("role/keylime", map[string]any{"token_bound_cidrs": "198.51.100.0/24,192.0.2.0/29"})
	if auth := w.in(w.spire, "keylime"); len(auth.BoundCIDRs) != 2 {
		t.Errorf("bound to %v", auth.BoundCIDRs)
	}
	before := w.content()
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	_, err := w.b.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: loginPath, Data: body(t, m), Storage: w.s,
	})
	wantRefusal(t, err, attest.RuleRole)
	if !maps.Equal(before, w.content()) {
		t.Error("a refused login changed what is stored")
	}
}

// paused is a storage that runs between once, right after the first read of a
// key.
type paused struct {
	logical.Storage
	key     string
	between func()
}

func (s *paused) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, key)
	if between := s.between; key == s.key && between != nil {
		s.between = nil
		between()
	}
	return entry, err
}

// Two operators at once, each with another field: neither undoes the other. A
// root that was taken away stays away.
func TestOperatorsDoNotUndoEachOther(t *testing.T) {
	for _, row := range []struct {
		path         string
		first, other map[string]any
		field        string
		want         any
	}{
		{"config", map[string]any{"audiences": audience}, map[string]any{"virtual_roots": ""}, "virtual_roots", ""},
		{"role/keylime", map[string]any{"token_ttl": "1m"}, map[string]any{"always_activate": true}, "always_activate", true},
	} {
		t.Run(row.path, func(t *testing.T) {
			w := newPlainWorld(t)
			plain, done := w.s, make(chan struct{})
			other := &mount{t: t, b: w.b, s: plain}
			w.s = &paused{Storage: plain, key: row.path, between: func() {
				go func() {
					defer close(done)
					_, err := other.request(logical.UpdateOperation, row.path, row.other)
					if err != nil {
						t.Errorf("second write: %v", err)
					}
				}()
				select { // for a moment: it may have to wait for us
				case <-done:
				case <-time.After(100 * time.Millisecond):
				}
			}}
			w.write(row.path, row.first)
			<-done
			if got := other.must(logical.ReadOperation, row.path, nil).Data[row.field]; got != row.want {
				t.Errorf("%s is %v, want %v", row.field, got, row.want)
			}
		})
	}
}

// OpenBao lets long bodies in. Nothing of them is copied: the refusal costs as
// much for 16 MiB as for 1 MiB.
func TestLongBodiesCostNothing(t *testing.T) {
	w := newPlainWorld(t)
	for name, field := range map[string]func(text string) (string, any){
		"version": func(text string) (string, any) { return "v", text },
		"role":    func(text string) (string, any) { return "role", text },
		"list":    func(text string) (string, any) { return "intermediates", []any{"", text} },
		"map":     func(text string) (string, any) { return "keys", map[string]any{"a": []any{text}} },
		"name":    func(text string) (string, any) { return text, "" },
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.AliasLookaheadOperation} {
			key, value := field(strings.Repeat("<", 16<<20))
			data := map[string]any{key: value}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := w.request(op, loginPath, data)
			runtime.ReadMemStats(&after)
			wantRefusal(t, err, attest.RuleSize)
			if cost := after.TotalAlloc - before.TotalAlloc; cost > 1<<20 {
				t.Errorf("%s: %s allocates %d bytes", name, op, cost)
			}
		}
	}
}
