// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

func TestChallengeIsGoodOnce(t *testing.T) {
	w := newPlainWorld(t)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	_, err := w.login(m)
	check(t, err)
	_, err = w.login(m)
	wantRefusal(t, err, attest.RuleFreshness)

	// A failed login spends it too.
	good := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	bad := good
	bad.Signature = w.second.Sign(t, bad.Quote)
	_, err = w.login(bad)
	wantRefusal(t, err, attest.RuleSignature)
	_, err = w.login(good)
	wantRefusal(t, err, attest.RuleFreshness)
}

func TestQuoteReplayedWithFreshChallenge(t *testing.T) {
	w := newPlainWorld(t)
	w.in(w.spire, "keylime")
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	m.Challenge = w.pose(w.spire, "keylime").Challenge
	_, err := w.login(m)
	wantRefusal(t, err, attest.RuleFreshness)
}

func TestChallengeExpires(t *testing.T) {
	w := newPlainWorld(t)
	for _, row := range []struct {
		age  time.Duration
		want attest.Rule
	}{
		{maxAge, ""},
		{maxAge + 1, attest.RuleFreshness},
		{-1, attest.RuleFreshness},
	} {
		m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
		w.clock.Add(int64(row.age))
		_, err := w.login(m)
		if row.want == "" {
			check(t, err)
			continue
		}
		wantRefusal(t, err, row.want)
	}
}

func TestChallengeOfAnother(t *testing.T) {
	s := new(logical.InmemStorage)
	w := newWorld(t, s)
	w.write("role/other", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0,2,4,7"})
	w.write("host/spire", map[string]any{"roles": "keylime,other"})

	t.Run("role", func(t *testing.T) {
		m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
		m.Role = "other"
		_, err := w.login(m)
		wantRefusal(t, err, attest.RuleChallenge)
	})
	t.Run("process", func(t *testing.T) {
		m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
		_, err := newMount(t, s, "mount-1").login(m)
		wantRefusal(t, err, attest.RuleChallenge)
	})
	t.Run("mount", func(t *testing.T) {
		// Even with the same key the mount's UUID is part of the seal.
		other := newMount(t, s, "mount-2")
		other.b.challenges.aead, other.b.challenges.used = w.b.challenges.aead, w.b.challenges.used
		m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
		_, err := other.login(m)
		wantRefusal(t, err, attest.RuleChallenge)
		_, err = w.login(m)
		check(t, err)
	})
	t.Run("mount that is gone", func(t *testing.T) {
		m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
		w.b.Cleanup(t.Context())
		_, err := w.login(m)
		wantRefusal(t, err, attest.RuleChallenge)
		_, err = w.challenge(w.spire.Request("keylime"))
		wantRefusal(t, err, attest.RuleInternal)
	})
}

// The same answer from eight at once gets exactly one token.
func TestChallengeRace(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			for range 10 {
				data := body(t, w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience))
				var in atomic.Int32
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						resp, err := w.request(logical.UpdateOperation, loginPath, data)
						switch {
						case err == nil && resp.Auth != nil:
							in.Add(1)
						case err == nil || resp != nil:
							t.Errorf("neither token nor refusal: %v, %v", resp, err)
						}
					})
				}
				wg.Wait()
				if in.Load() != 1 {
					t.Fatalf("%d of 8 got in", in.Load())
				}
			}
		})
	}
}

// First logins of one TPM at once: all get in, and one pin is there.
func TestPinRace(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			var bodies []map[string]any
			for range 8 {
				bodies = append(bodies, body(t, w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)))
			}
			var wg sync.WaitGroup
			for _, data := range bodies {
				wg.Go(func() {
					if _, err := w.request(logical.UpdateOperation, loginPath, data); err != nil {
						t.Errorf("refused: %v", err)
					}
				})
			}
			wg.Wait()
			pins := 0
			for _, key := range w.keys() {
				if key == pinPrefix+w.id(w.spire) || key == akKey(w.spire.AK) {
					pins++
				}
			}
			if pins != 2 {
				t.Errorf("stored: %v", w.keys())
			}
		})
	}
}

// meeting is a storage where the readers of one key wait for each other, for a
// moment at least: what a lock must keep apart then happens at once.
type meeting struct {
	logical.Storage
	key  string
	here chan struct{}
}

func (m *meeting) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := m.Storage.Get(ctx, key)
	if key == m.key {
		select {
		case m.here <- struct{}{}:
		case <-m.here:
		case <-time.After(100 * time.Millisecond):
		}
	}
	return entry, err
}

// Two TPMs that show one AK at once: one pins it, the other is refused.
func TestOneAKForTwoTPMs(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			w.write("host/auth", map[string]any{"tpm_ids": w.id(w.second), "roles": "keylime"})
			w.second.StealAK(w.spire)
			one := body(t, w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience))
			two := body(t, w.second.Answer(t, w.pose(w.second, "keylime"), "keylime", audience))
			if name == "plain" {
				w.s = &meeting{Storage: s, key: akKey(w.spire.AK), here: make(chan struct{})}
			}
			var in atomic.Int32
			var wg sync.WaitGroup
			for _, data := range []map[string]any{one, two} {
				wg.Go(func() {
					_, err := w.request(logical.UpdateOperation, loginPath, data)
					if err == nil {
						in.Add(1)
						return
					}
					wantRefusalAsync(t, err, attest.RuleTPMTaken)
				})
			}
			wg.Wait()
			if in.Load() != 1 {
				t.Errorf("%d of 2 got in", in.Load())
			}
		})
	}
}

// interrupted is a storage in which a pin waits to be written until somebody has
// changed something else, or for a moment at least.
type interrupted struct {
	logical.Storage
	writing, changed chan struct{}
}

func (s *interrupted) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if strings.HasPrefix(entry.Key, pinPrefix) {
		close(s.writing)
		select {
		case <-s.changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
	return s.Storage.Put(ctx, entry)
}

// A host that is deleted while it logs in leaves no pin behind, also where the
// storage has no transactions.
func TestHostDeletedDuringLogin(t *testing.T) {
	w := newPlainWorld(t)
	data := body(t, w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience))
	s := &interrupted{Storage: w.s, writing: make(chan struct{}), changed: make(chan struct{})}
	w.s = s
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := w.request(logical.UpdateOperation, loginPath, data); err != nil {
			t.Errorf("refused: %v", err)
		}
	})
	<-s.writing
	w.must(logical.DeleteOperation, "host/spire", nil)
	close(s.changed)
	wg.Wait()
	w.lift(w.spire)
	if slices.ContainsFunc(w.keys(), func(key string) bool {
		return strings.HasPrefix(key, pinPrefix) || strings.HasPrefix(key, akPrefix)
	}) {
		t.Errorf("left behind: %v", w.keys())
	}
}

func wantRefusalAsync(t *testing.T, err error, want attest.Rule) {
	t.Helper()
	if err.Error() != attest.RefusalPrefix+string(want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Looking ahead and resolving the role spend nothing.
func TestLookingAheadSpendsNothing(t *testing.T) {
	w := newPlainWorld(t)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	for range 100 {
		resp := w.must(logical.AliasLookaheadOperation, loginPath, body(t, m))
		if resp.Auth.Alias.Name != w.id(w.spire) || resp.Auth.ClientToken != "" || len(resp.Auth.Policies) != 0 {
			t.Fatalf("look-ahead gives %+v", resp.Auth)
		}
		if resp := w.must(logical.ResolveRoleOperation, loginPath, body(t, m)); resp.Data["role"] != "keylime" {
			t.Fatalf("role is %v", resp.Data)
		}
	}
	_, err := w.login(m)
	check(t, err)
	m.Challenge[30] ^= 1
	_, err = w.request(logical.AliasLookaheadOperation, loginPath, body(t, m))
	wantRefusal(t, err, attest.RuleChallenge)
}

// OpenBao asks the login path whose quota a challenge counts against, too.
func TestResolveRoleOfAnyRequest(t *testing.T) {
	w := newPlainWorld(t)
	resp := w.must(logical.ResolveRoleOperation, loginPath, body(t, w.spire.Request("keylime")))
	if resp.Data["role"] != "keylime" {
		t.Errorf("role is %v", resp.Data)
	}
	for _, data := range []map[string]any{nil, {"role": ""}, {"role": 7}, {"role": []any{}}} {
		if resp, err := w.request(logical.ResolveRoleOperation, loginPath, data); err == nil {
			t.Errorf("role of %v is %v", data, resp)
		}
	}
}

// A flood of challenges leaves no trace in storage, and the first of them is
// still good.
func TestFloodOfChallenges(t *testing.T) {
	w := newPlainWorld(t)
	first := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	before := w.content()
	data := body(t, w.second.Request("keylime"))
	for range 1000 {
		w.must(logical.UpdateOperation, challengePath, data)
	}
	if !maps.Equal(before, w.content()) {
		t.Error("challenges were stored")
	}
	_, err := w.login(first)
	check(t, err)
}

func TestWindow(t *testing.T) {
	w := new(window)
	if w.spend(0) {
		t.Error("spent a counter that was not issued")
	}
	first := w.issue()
	for range windowSize - 1 {
		w.issue()
	}
	if !w.spend(first) || w.spend(first) {
		t.Error("the oldest counter in the window is good once")
	}
	second := first + 1
	last := w.issue()
	if w.spend(first) {
		t.Error("a counter came back when its slot was issued again")
	}
	if !w.spend(last) || w.spend(last) || w.spend(last+1) {
		t.Error("the last counter is good once, the next not yet")
	}
	if !w.spend(second) {
		t.Error("the oldest counter in the window is good")
	}
	w.issue()
	if w.spend(second) || w.spend(1<<63) {
		t.Error("spent a counter outside the window")
	}
}

func TestSealHoldsEverything(t *testing.T) {
	for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
		for _, selection := range []attest.Selection{
			{Bank: "sha256", PCRs: []int{0}}, {Bank: "sha384", PCRs: []int{0, 7, 8, 23}},
		} {
			m := newMount(t, new(logical.InmemStorage), "mount-1")
			s := &sealed{kind: kind, class: attest.ClassFirmware, selection: selection}
			for i, part := range []*[32]byte{&s.settings, &s.config, &s.tpm, &s.ekCertificate, &s.issuerSerial, &s.akX, &s.akY, &s.secret} {
				part[0] = byte(i + 1)
			}
			s.role = sha("r")
			token, err := m.b.challenges.seal(s)
			check(t, err)
			if len(token) != sealedSize || sealedSize > attest.MaxChallenge {
				t.Fatalf("challenge of %d bytes", len(token))
			}
			got, err := m.b.challenges.open(token, "r")
			check(t, err)
			if !equalSealed(got, s) {
				t.Errorf("sealed %+v, opened %+v", s, got)
			}
		}
	}
}
