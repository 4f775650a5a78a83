// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

func sha(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func equalSealed(a, b *sealed) bool { return reflect.DeepEqual(a, b) }

// breakable is a storage whose n-th operation of a kind fails.
type breakable struct {
	logical.Storage
	gets, puts, deletes int // operations until the failure; 0 never fails
}

var errBroken = errors.New("disk on fire")

func countdown(n *int) error {
	if *n == 0 {
		return nil
	}
	if *n--; *n == 0 {
		return errBroken
	}
	return nil
}

func (b *breakable) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := countdown(&b.gets); err != nil {
		return nil, err
	}
	return b.Storage.Get(ctx, key)
}

func (b *breakable) Put(ctx context.Context, e *logical.StorageEntry) error {
	if err := countdown(&b.puts); err != nil {
		return err
	}
	return b.Storage.Put(ctx, e)
}

func (b *breakable) Delete(ctx context.Context, key string) error {
	if err := countdown(&b.deletes); err != nil {
		return err
	}
	return b.Storage.Delete(ctx, key)
}

// wantStorageFailure fails unless a host hears that the storage failed and an
// operator what the storage said.
func wantStorageFailure(t *testing.T, m *mount, err, said error) {
	t.Helper()
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // the plugin protocol looks at the type alone
	if !ok || coded.Code() != http.StatusInternalServerError || coded.Error() != storageFailed {
		t.Errorf("a host hears %v", err)
	}
	if !strings.Contains(m.logged.String(), said.Error()) {
		t.Errorf("log: %s", m.logged)
	}
}

// Whatever read or write fails, there is an error without the storage's words,
// and no token.
func TestStorageFaultsDeny(t *testing.T) {
	s := &breakable{Storage: new(logical.InmemStorage)}
	w := newWorld(t, s)
	for _, op := range []struct {
		name  string
		count *int
		least int
	}{
		{"get", &s.gets, 6},
		{"put", &s.puts, 2},
	} {
		failed := 0
		for n := 1; ; n++ {
			check(t, s.Storage.Delete(t.Context(), pinPrefix+w.id(w.spire)))
			check(t, s.Storage.Delete(t.Context(), akKey(w.spire.AK)))
			w.cold()
			m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
			w.cold()
			*op.count = n
			auth, err := w.login(m)
			if *op.count > 0 { // the login has no n-th operation
				*op.count = 0
				check(t, err)
				break
			}
			failed++
			if auth != nil {
				t.Fatalf("%s %d fails, and there is a token", op.name, n)
			}
			wantStorageFailure(t, w.mount, err, errBroken)
		}
		if failed < op.least {
			t.Errorf("only %d %ss of a login could fail", failed, op.name)
		}
	}
}

func TestStorageFaultsDenyChallenges(t *testing.T) {
	s := &breakable{Storage: new(logical.InmemStorage)}
	w := newWorld(t, s)
	for n := 1; n <= 3; n++ {
		w.cold()
		s.gets = n
		_, err := w.challenge(w.spire.Request("keylime"))
		wantStorageFailure(t, w.mount, err, errBroken)
	}
}

// InmemStorage's own faults, as OpenBao's tests use them.
func TestInmemFaults(t *testing.T) {
	s := new(logical.InmemStorage)
	w := newWorld(t, s)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	s.FailPut(true)
	if auth, err := w.login(m); err == nil || auth != nil {
		t.Errorf("login without writes: %v, %v", auth, err)
	}
	s.FailPut(false)
	m = w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	w.b.store.records.Purge()
	s.FailGet(true)
	if auth, err := w.login(m); err == nil || auth != nil {
		t.Errorf("login without reads: %v, %v", auth, err)
	}
}

// flaky is a transactional storage whose commits fail.
type flaky struct {
	logical.TransactionalStorage
	commit error
}

type flakyTx struct {
	logical.Transaction
	commit error
}

func (f *flaky) wrap(tx logical.Transaction, err error) (logical.Transaction, error) {
	return &flakyTx{Transaction: tx, commit: f.commit}, err
}

func (f *flaky) BeginTx(ctx context.Context) (logical.Transaction, error) {
	return f.wrap(f.TransactionalStorage.BeginTx(ctx))
}

func (f *flaky) BeginReadOnlyTx(ctx context.Context) (logical.Transaction, error) {
	return f.wrap(f.TransactionalStorage.BeginReadOnlyTx(ctx))
}

func (f *flakyTx) Commit(ctx context.Context) error {
	if f.commit != nil {
		return errors.Join(f.commit, f.Rollback(ctx))
	}
	return f.Transaction.Commit(ctx)
}

// No commit, no token: over the plugin protocol a transaction that never began
// shows only when it ends.
func TestCommitFaultsDeny(t *testing.T) {
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	s := &flaky{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
	w := newWorld(t, s)
	for _, boot := range []uint32{0, 1} { // a first login, and one after a restart
		before := w.content()
		m := w.spire.AnswerWith(t, w.pose(w.spire, "keylime"), attest.LoginRequest{V: 1, Role: "keylime", Audience: audience},
			func(a *provertest.Attestation) { a.Restart = boot })
		s.commit = errors.New("missing storage implementation")
		auth, err := w.login(m)
		if auth != nil {
			t.Error("a token for a login whose commit fails")
		}
		wantStorageFailure(t, w.mount, err, s.commit)
		s.commit = nil
		if !maps.Equal(before, w.content()) {
			t.Error("a login whose commit failed was stored")
		}
		if boot == 0 {
			w.in(w.spire, "keylime")
		}
	}
}

// A login that lost a race over its pin starts over.
func TestLostRaceIsState(t *testing.T) {
	if err := lostRace(errBroken); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	var r *attest.Refusal
	if err := lostRace(errors.New("rpc: transaction commit failed")); !errors.As(err, &r) || r.Rule != attest.RuleState {
		t.Errorf("%v", err)
	}
}

// A host record and its index change together or not at all.
func TestHostFaultsChangeNothing(t *testing.T) {
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	s := &flaky{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
	w := newWorld(t, s)
	w.in(w.spire, "keylime")
	before := w.content()
	s.commit = errors.New("transaction commit failed")
	for _, request := range []struct {
		op   logical.Operation
		data map[string]any
	}{
		{logical.UpdateOperation, map[string]any{"tpm_ids": w.id(w.second)}},
		{logical.DeleteOperation, nil},
	} {
		if _, err := w.request(request.op, "host/spire", request.data); !errors.Is(err, s.commit) {
			t.Errorf("%s: %v", request.op, err)
		}
		if !maps.Equal(before, w.content()) {
			t.Errorf("%s changed something", request.op)
		}
	}
}

// Records that do not parse deny, with a rule.
func TestStoredGarbageDenies(t *testing.T) {
	for _, key := range []string{"config", "role/keylime", "host/spire", "tpm/", "pin/", "ak/"} {
		for _, garbage := range []string{"{", `{"ak":"AAAA"}`, `{"ak":"` + strings.Repeat("A", 86) + `=="}`, `[]`} {
			t.Run(key+" "+garbage, func(t *testing.T) {
				w := newPlainWorld(t)
				w.write("role/keylime", map[string]any{"always_activate": true})
				m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
				switch key {
				case "tpm/", "pin/":
					key += w.id(w.spire)
				case "ak/":
					key = akKey(w.spire.AK)
				}
				check(t, w.s.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(garbage)}))
				w.cold()
				resp, err := w.request(logical.UpdateOperation, loginPath, body(t, m))
				if err == nil || resp != nil || !strings.HasPrefix(err.Error(), attest.RefusalPrefix) {
					t.Fatalf("got %v, %v", resp, err)
				}
			})
		}
	}
}

func TestNoRandomness(t *testing.T) {
	w := newPlainWorld(t)
	w.b.random = iotest.ErrReader(io.ErrUnexpectedEOF)
	_, err := w.challenge(w.spire.Request("keylime"))
	wantRefusal(t, err, attest.RuleInternal)
	if _, err := newChallenges(w.b.random, "", nil); err == nil {
		t.Error("a key without randomness")
	}
}

// A panic anywhere becomes the refusal internal, without a token.
func TestPanic(t *testing.T) {
	w := newPlainWorld(t)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	resp, err := w.b.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: loginPath, Data: body(t, m), Storage: nil,
	})
	wantRefusal(t, err, attest.RuleInternal)
	if resp != nil {
		t.Errorf("response %+v", resp)
	}
}

// What only the active node can do goes there; its text makes OpenBao forward.
func TestStandbyForwards(t *testing.T) {
	w := newPlainWorld(t)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	w.standby()
	for _, request := range []struct {
		op   logical.Operation
		path string
		data map[string]any
	}{
		{logical.UpdateOperation, challengePath, body(t, w.spire.Request("keylime"))},
		{logical.UpdateOperation, challengePath, map[string]any{"v": "x"}},
		{logical.UpdateOperation, loginPath, body(t, m)},
		{logical.AliasLookaheadOperation, loginPath, body(t, m)},
		{logical.UpdateOperation, "config", nil},
		{logical.CreateOperation, "role/new", nil},
		{logical.UpdateOperation, "role/keylime", nil},
		{logical.DeleteOperation, "role/keylime", nil},
		{logical.CreateOperation, "host/new", nil},
		{logical.UpdateOperation, "host/spire", nil},
		{logical.DeleteOperation, "host/spire", nil},
		{logical.ReadOperation, "host/spire", nil}, // the active node knows when it was last seen
	} {
		if _, err := w.request(request.op, request.path, request.data); !errors.Is(err, logical.ErrReadOnly) {
			t.Errorf("%s %s on a standby: %v", request.op, request.path, err)
		}
	}
	for _, path := range []string{"config", "role/keylime", "tombstone/" + w.id(w.second), "baseline/none"} {
		w.must(logical.ReadOperation, path, nil)
	}
	w.must(logical.ListOperation, "host/", nil)
	w.must(logical.ResolveRoleOperation, loginPath, body(t, m))
}

// A storage that turns out to be read-only in the middle of a login says so in
// words that make OpenBao forward the request.
func TestReadOnlyStorageIsPassedOn(t *testing.T) {
	w := newPlainWorld(t)
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	w.s = readOnly{w.s}
	if _, err := w.login(m); !logical.ShouldForward(err) {
		t.Errorf("got %v", err)
	}
}

type readOnly struct{ logical.Storage }

func (readOnly) Put(context.Context, *logical.StorageEntry) error { return logical.ErrReadOnly }

// What a client sent is for the log in quotes, and in part only.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  `"plain"`,
		"\x1b[2J\u202e":          `"\x1b[2J\u202e"`,
		strings.Repeat("a", 500): `"` + strings.Repeat("a", maxDetail) + `\u2026"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q becomes %s", in, got)
		}
	}
}
