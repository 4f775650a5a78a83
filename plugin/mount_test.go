// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

const audience = "https://spire.funlab.casa:8200||auth/tpm"

// mount is one mount of the auth method in memory, spoken to through
// HandleRequest as OpenBao does.
type mount struct {
	t      testing.TB
	b      *backend
	s      logical.Storage
	view   *logical.StaticSystemView
	clock  atomic.Int64 // the challenges' clock
	logged *recorder
}

// recorder is a log that a test can read.
type recorder struct {
	mu   sync.Mutex
	text []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, b...)
	return len(b), nil
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}

func newMount(t testing.TB, s logical.Storage, uuid string) *mount {
	t.Helper()
	m := &mount{t: t, s: s, view: &logical.StaticSystemView{PluginEnvironment: &logical.PluginEnvironment{}}, logged: new(recorder)}
	made, err := Factory(t.Context(), &logical.BackendConfig{
		Logger:      hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: m.logged, JSONFormat: true}),
		System:      m.view,
		StorageView: s,
		BackendUUID: uuid,
	})
	check(t, err)
	m.b = made.(*backend)
	m.b.challenges.now = func() time.Duration { return time.Duration(m.clock.Load()) }
	return m
}

// storages are the two kinds of storage OpenBao has.
func storages(t testing.TB) map[string]logical.Storage {
	t.Helper()
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	return map[string]logical.Storage{
		"plain":         new(logical.InmemStorage),
		"transactional": logical.NewLogicalStorage(physical),
	}
}

func (m *mount) request(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	return m.b.HandleRequest(context.Background(), &logical.Request{
		Operation: op, Path: path, Data: data, Storage: m.s,
		Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
	})
}

// must is request where nothing may go wrong.
func (m *mount) must(op logical.Operation, path string, data map[string]any) *logical.Response {
	m.t.Helper()
	resp, err := m.request(op, path, data)
	check(m.t, err)
	check(m.t, resp.Error())
	return resp
}

func (m *mount) write(path string, data map[string]any) *logical.Response {
	m.t.Helper()
	return m.must(logical.UpdateOperation, path, data)
}

// refuses is request where an operator must be told that it will not do.
func (m *mount) refuses(op logical.Operation, path string, data map[string]any) string {
	m.t.Helper()
	resp, err := m.request(op, path, data)
	check(m.t, err)
	if !resp.IsError() {
		m.t.Fatalf("%s %s with %v: no error", op, path, data)
	}
	return resp.Error().Error()
}

// body is a message as OpenBao hands it on.
func body(t testing.TB, message any) map[string]any {
	t.Helper()
	b, err := json.Marshal(message)
	check(t, err)
	data := map[string]any{}
	check(t, json.Unmarshal(b, &data))
	return data
}

func (m *mount) challenge(request attest.ChallengeRequest) (c attest.Challenge, err error) {
	m.t.Helper()
	resp, err := m.request(logical.UpdateOperation, challengePath, body(m.t, request))
	if err != nil {
		return c, err
	}
	b, err := json.Marshal(resp.Data)
	check(m.t, err)
	check(m.t, json.Unmarshal(b, &c))
	check(m.t, c.Check())
	return c, nil
}

func (m *mount) login(message attest.LoginRequest) (*logical.Auth, error) {
	m.t.Helper()
	resp, err := m.request(logical.UpdateOperation, loginPath, body(m.t, message))
	if err != nil {
		if resp != nil {
			m.t.Fatalf("response %v together with error %v", resp, err)
		}
		return nil, err
	}
	if resp.Auth == nil || resp.IsError() {
		m.t.Fatalf("no token and no error: %+v", resp)
	}
	return resp.Auth, nil
}

// wantRefusal fails unless err is exactly what a host may hear of this rule.
func wantRefusal(t testing.TB, err error, want attest.Rule) {
	t.Helper()
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // the plugin protocol looks at the type alone
	if !ok {
		t.Fatalf("got %T %v, want the refusal %s", err, err, want)
	}
	if coded.Error() != attest.RefusalPrefix+string(want) || coded.Code() != want.Status() {
		t.Fatalf("got %d %q, want %d and the rule %s", coded.Code(), coded, want.Status(), want)
	}
}

// keys lists everything that is stored.
func (m *mount) keys() []string {
	m.t.Helper()
	keys, err := logical.CollectKeys(context.Background(), m.s)
	check(m.t, err)
	slices.Sort(keys)
	return keys
}

// content is everything that is stored.
func (m *mount) content() map[string]string {
	m.t.Helper()
	all := map[string]string{}
	for _, key := range m.keys() {
		entry, err := m.s.Get(context.Background(), key)
		check(m.t, err)
		all[key] = string(entry.Value)
	}
	return all
}

// cold drops what the mount keeps in memory of its records.
func (m *mount) cold() {
	m.t.Helper()
	m.b.store.drop(m.keys()...)
	m.b.store.records.Purge()
}

func (m *mount) standby() { m.view.ReplicationStateVal = consts.ReplicationPerformanceStandby }

// players are TPMs of one vendor, made once: RSA keys take their time.
var players = struct {
	once   sync.Once
	vendor *provertest.Vendor
	liars  [3]*provertest.Liar
}{}

// world is a mount that is configured, has a role, and knows one host by its
// TPM.
type world struct {
	*mount
	vendor        *provertest.Vendor
	spire, second *provertest.Liar // spire is enrolled, second is of the same vendor
}

func newWorld(t testing.TB, s logical.Storage) *world {
	t.Helper()
	players.once.Do(func() {
		players.vendor = provertest.NewVendor(t)
		for i := range players.liars {
			players.liars[i] = provertest.NewLiar(t, players.vendor)
		}
	})
	spire, second := *players.liars[0], *players.liars[1] // tests may change keys
	w := &world{mount: newMount(t, s, "mount-1"), vendor: players.vendor, spire: &spire, second: &second}
	w.write("config", map[string]any{"virtual_roots": w.vendor.PEM(), "audiences": []string{audience}})
	w.write("role/keylime", map[string]any{
		"way_in": "allow-list", "ek_classes": "virtual", "pcrs": []int{0, 2, 4, 7}, "token_policies": "keylime",
	})
	w.write("host/spire", map[string]any{"tpm_ids": w.id(w.spire), "roles": "keylime"})
	return w
}

func newPlainWorld(t testing.TB) *world {
	t.Helper()
	return newWorld(t, new(logical.InmemStorage))
}

func (w *world) id(l *provertest.Liar) string {
	w.t.Helper()
	id, err := attest.NewTPMID(l.EK.Public())
	check(w.t, err)
	return string(id)
}

// pose asks for a challenge where there must be one.
func (w *world) pose(l *provertest.Liar, role string) attest.Challenge {
	w.t.Helper()
	c, err := w.challenge(l.Request(role))
	check(w.t, err)
	return c
}

// lift takes the tombstone of a TPM away.
func (w *world) lift(l *provertest.Liar) {
	w.t.Helper()
	w.must(logical.DeleteOperation, "tombstone/"+w.id(l), nil)
}

// in lets a host log in where it must get in.
func (w *world) in(l *provertest.Liar, role string) *logical.Auth {
	w.t.Helper()
	c := w.pose(l, role)
	auth, err := w.login(l.Answer(w.t, c, role, audience))
	check(w.t, err)
	return auth
}

// out lets a host log in where it must be refused.
func (w *world) out(l *provertest.Liar, role string, want attest.Rule) {
	w.t.Helper()
	before := w.content()
	c := w.pose(l, role)
	_, err := w.login(l.Answer(w.t, c, role, audience))
	wantRefusal(w.t, err, want)
	if !maps.Equal(before, w.content()) {
		w.t.Fatal("a refused login changed what is stored")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
