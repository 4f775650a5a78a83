// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/verify"
)

// same reports whether a record that is kept is the one that is stored.
func same[T any](f *fleet, key string, kept any) bool {
	stored, err := load[T](f.t.Context(), f.s, key)
	check(f.t, err)
	record, ok := kept.(*T)
	return ok && stored != nil && reflect.DeepEqual(record, stored)
}

// types is how to compare the records under each prefix.
var types = map[string]func(*fleet, string, any) bool{
	configKey: same[config], rolePrefix: same[role], hostPrefix: same[host], tpmPrefix: same[owner],
	certPrefix: same[owner], serialPrefix: same[owner], pinPrefix: same[pin], akPrefix: same[akOwner],
	tombstonePrefix: same[tombstone], ticketPrefix: same[ticket], pendingPrefix: same[pending],
	baselinePrefix: same[baseline], verdictPrefix: same[report],
}

// wantCoherent fails unless all that is kept in memory is what is stored.
func (f *fleet) wantCoherent() {
	f.t.Helper()
	for _, key := range f.b.store.records.Keys() {
		prefix, _, cut := strings.Cut(key, "/")
		if cut {
			prefix += "/"
		}
		kept, ok := f.b.store.records.Peek(key)
		if ok && !types[prefix](f, key, kept) {
			f.t.Errorf("%s is kept as %+v", key, kept)
		}
	}
}

// wantWhole fails unless the indexes and the records say the same.
func (f *fleet) wantWhole() {
	f.t.Helper()
	ctx, claimed, pinned := f.t.Context(), map[string]string{}, map[string]string{}
	for _, key := range f.keys() {
		if name, ok := strings.CutPrefix(key, hostPrefix); ok {
			h, err := load[host](ctx, f.s, key)
			check(f.t, err)
			for _, claim := range h.claims() {
				if claimed[claim] != "" {
					f.t.Errorf("%s and %s have %s", claimed[claim], name, claim)
				}
				claimed[claim] = name
			}
		}
		if id, ok := strings.CutPrefix(key, pinPrefix); ok {
			p, err := load[pin](ctx, f.s, key)
			check(f.t, err)
			ak, err := p.ak()
			check(f.t, err)
			pinned[akKey(ak)] = id
		}
		if id, ok := strings.CutPrefix(key, tombstonePrefix); ok {
			stone, err := load[tombstone](ctx, f.s, key)
			check(f.t, err)
			if stone.AKName != "" {
				pinned[akPrefix+stone.AKName] = id
			}
		}
	}
	f.wantIndexes(claimed, pinned)
}

func (f *fleet) wantIndexes(claimed, pinned map[string]string) {
	f.t.Helper()
	hosts := maps.Clone(claimed)
	for _, key := range f.keys() {
		prefix, id, _ := strings.Cut(key, "/")
		switch prefix + "/" {
		case tpmPrefix, certPrefix, serialPrefix:
			o, err := load[owner](f.t.Context(), f.s, key)
			check(f.t, err)
			if claimed[key] != o.Host {
				f.t.Errorf("%s says %s, the records say %q", key, o.Host, claimed[key])
			}
			delete(claimed, key)
		case akPrefix:
			o, err := load[akOwner](f.t.Context(), f.s, key)
			check(f.t, err)
			if pinned[key] != string(o.TPMID) {
				f.t.Errorf("%s says %s, the pins say %q", key, o.TPMID, pinned[key])
			}
			delete(pinned, key)
		case tombstonePrefix, pendingPrefix:
			for claim, host := range hosts {
				if tombstoneName(claim) == id {
					f.t.Errorf("%s and host %s are there", key, host)
				}
			}
		}
	}
	delete(pinned, "")
	if len(pinned) != 0 {
		f.t.Errorf("pinned and in no index: %v", pinned)
	}
	for claim := range claimed {
		if f.content()[claim] == "" {
			f.t.Errorf("%s is in no index", claim)
		}
	}
}

// player does something by chance.
type player struct {
	f       *fleet
	dice    *rand.Rand
	boards  []*attacker.TPM
	tickets []attest.Ticket
}

func newPlayer(f *fleet, seed uint64) *player {
	p := &player{f: f, dice: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // chance that can be had again
	for range 5 {
		tpm := f.tpm()
		p.boards = append(p.boards, tpm, f.otherEK(tpm))
	}
	return p
}

func pick[T any](p *player, list ...T) T { return list[p.dice.IntN(len(list))] }

func (p *player) host() string { return pick(p, "spire", "auth", "third") }

func (p *player) id() string { return idOf(p.f.t, pick(p, p.boards...)) }

// ask sends a request of an operator; mistakes are welcome.
func (p *player) ask(op logical.Operation, path string, data map[string]any) {
	_, err := p.f.b.HandleRequest(context.Background(), &logical.Request{
		Operation: op, Path: path, Data: data, Storage: p.f.s,
	})
	if err != nil && !strings.Contains(err.Error(), "transaction commit failed") {
		p.f.t.Errorf("%s %s: %v", op, path, err)
	}
}

// operate is something that operators do.
func (p *player) operate() {
	update, remove := logical.UpdateOperation, logical.DeleteOperation
	switch p.dice.IntN(14) {
	case 0, 1:
		p.ask(update, "host/"+p.host(), map[string]any{"tpm_ids": []string{p.id()}, "roles": pick(p, allWays, "allow-list")})
	case 2:
		p.ask(update, "host/"+p.host(), map[string]any{"tpm_ids": []string{p.id(), p.id()}})
	case 3:
		sum, serial := p.f.certificateOf(pick(p, p.boards...).EKCertificate)
		p.ask(update, "host/"+p.host(), pick(p,
			map[string]any{"ek_certificate_sha256": sum, "ek_issuer_serial": "", "roles": allWays},
			map[string]any{"ek_certificate_sha256": "", "ek_issuer_serial": serial, "roles": allWays}))
	case 4:
		p.ask(remove, "host/"+p.host(), nil)
	case 5:
		p.ask(update, "host/"+p.host()+"/"+pick(p, "disable", "quarantine"), nil)
	case 6:
		p.ask(update, "host/"+p.host()+"/accept-reset", nil)
		p.ask(update, "host/"+p.host()+"/enable", nil)
	case 7:
		p.ask(update, "host/"+p.host()+"/replace", map[string]any{"tpm_ids": p.id()})
	case 8, 9:
		p.ask(remove, tombstonePrefix+p.id(), nil)
		sum, serial := p.f.certificateOf(pick(p, p.boards...).EKCertificate)
		p.ask(remove, tombstonePrefix+pick(p, "certificate-"+sum, "serial-"+serial), nil)
	case 10:
		p.ask(update, pendingPrefix+p.id()+"/"+pick(p, "approve", "deny"), map[string]any{"name": p.host(), "roles": allWays})
	case 11:
		p.ask(update, "role/"+pick(p, strings.Split(allWays, ",")...), map[string]any{"token_ttl": p.dice.IntN(60) + 1})
	case 12:
		p.ask(update, "inventory", map[string]any{"hosts": []any{map[string]any{"name": p.host(), "tpm_ids": []any{p.id()}, "roles": allWays}}})
	default:
		p.issue()
	}
}

func (p *player) issue() {
	resp, err := p.f.b.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "ticket", Storage: p.f.s, WrapInfo: &logical.RequestWrapInfo{TTL: 1},
		Data: map[string]any{"host": p.host(), "role": "ticket", "roles": allWays, "any_tpm": true},
	})
	if err != nil || resp.IsError() {
		return
	}
	secret, err := secretOf(resp)
	check(p.f.t, err)
	p.tickets = append(p.tickets, secret)
}

// listed is a board that can be a host's, if there is one.
func (p *player) listed() *attacker.TPM {
	var boards []*attacker.TPM
	for _, tpm := range p.boards {
		if entry, err := p.f.s.Get(context.Background(), tpmPrefix+idOf(p.f.t, tpm)); err == nil && entry != nil {
			boards = append(boards, tpm)
		}
	}
	if len(boards) == 0 {
		boards = p.boards
	}
	return pick(p, boards...)
}

// attest is a login by some board, honest but for its age.
func (p *player) attest() {
	tpm := pick(p, pick(p, p.boards...), p.listed(), p.listed())
	switch p.dice.IntN(16) {
	case 0, 1:
		tpm.Reset()
	case 2:
		tpm.Clear()
	}
	l := to(pick(p, byAllowList, byTicket, byPending))
	if len(p.tickets) > 0 && p.dice.IntN(3) == 0 {
		l = with(pick(p, p.tickets...))
	}
	if _, err := tpm.Attest(context.Background(), attacker.Handler(p.f.serve), l); err != nil {
		p.f.t.Errorf("login: %v", err)
	}
}

// wantOneMind fails unless a login is decided alike by what is kept and by what is
// stored.
func (p *player) wantOneMind() {
	f, l := p.f, to(pick(p, byAllowList, byTicket, byPending))
	f.t.Helper()
	tpm := pick(p, p.boards...)
	c, err := tpm.Challenge(f.t.Context(), attacker.Handler(f.serve), l.Role)
	check(f.t, err)
	m, err := tpm.Answer(c, l)
	check(f.t, err)
	s, err := f.b.challenges.look(m.Challenge, m.Role)
	check(f.t, err)
	ak, err := attest.AKFromPoint(s.akX, s.akY)
	check(f.t, err)
	quote, err := verify.Login(m, verify.Challenge{Kind: s.kind, AK: ak, Secret: s.secret[:], Selection: s.selection}, []string{audience})
	check(f.t, err)
	proven := proof{message: m, challenge: s, ak: ak, quote: quote}
	var said []string
	for _, rd := range []reader{f.b.reader(f.s), {storage: f.s}, f.b.reader(f.s)} {
		a, err := f.b.decide(f.t.Context(), rd, proven)
		text := fmt.Sprint(err)
		if err == nil {
			text = fmt.Sprintf("%s %+v %+v, %d writes", a.host, a.record, a.pin, len(a.writes(nil)))
		}
		said = append(said, text)
	}
	if said[0] != said[1] || said[1] != said[2] {
		f.t.Errorf("decided as %q", said)
	}
}

// Whatever operators and hosts do: what is kept in memory is what is stored,
// logins are decided alike by both, and indexes and records agree.
func TestStoreByChance(t *testing.T) {
	t.Parallel()
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, s)
			seed := rand.Uint64() //nolint:gosec // chance that can be had again
			t.Logf("seed %d", seed)
			p := newPlayer(f, seed)
			for range 400 {
				if p.dice.IntN(2) == 0 {
					p.operate()
				} else {
					p.attest()
				}
				p.wantOneMind()
				f.wantCoherent()
				f.wantWhole()
				if t.Failed() {
					t.FailNow()
				}
			}
			logins := f.read("statistics")["logins"].(uint64)
			t.Logf("%d logins, refused: %v", logins, f.read("statistics")["refused"])
			if logins == 0 {
				t.Error("nobody got in")
			}
		})
	}
}

// The same from many at once.
func TestStoreByChanceAtOnce(t *testing.T) {
	t.Parallel()
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, s)
			seed := rand.Uint64() //nolint:gosec // chance that can be had again
			t.Logf("seed %d", seed)
			whole := newPlayer(f, seed)
			var wg sync.WaitGroup
			for i := range uint64(4) {
				p := newPlayer(f, seed+i)
				p.boards = nil
				for _, tpm := range whole.boards {
					p.boards = append(p.boards, tpm.Clone())
				}
				wg.Go(func() {
					for range 100 {
						if p.dice.IntN(3) == 0 {
							p.operate()
						} else {
							p.attest()
						}
					}
				})
			}
			wg.Wait()
			f.wantCoherent()
			f.wantWhole()
			for range 20 {
				whole.wantOneMind()
			}
		})
	}
}

// Records are read from the storage once, and again when OpenBao says that they
// changed beneath us.
func TestStoreReadsOnce(t *testing.T) {
	s := &reads{Storage: new(logical.InmemStorage)}
	f := newFleet(t, s)
	tpm := f.enrolled("spire")
	f.gets(tpm, to(byAllowList))
	s.keys = nil
	for range 20 {
		f.gets(tpm, to(byAllowList))
	}
	if len(s.keys) != 0 {
		t.Errorf("a renewal reads %v", s.keys)
	}
	h, err := load[host](t.Context(), f.s, hostPrefix+"spire")
	check(t, err)
	h.State = hostQuarantined
	check(t, save(t.Context(), f.s, hostPrefix+"spire", h))
	f.b.InvalidateKey(t.Context(), hostPrefix+"spire")
	f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.keys, hostPrefix+"spire") {
		t.Errorf("read: %v", s.keys)
	}
}

// reads is a storage that notes what is read.
type reads struct {
	logical.Storage
	mu   sync.Mutex
	keys []string
}

func (r *reads) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	r.mu.Lock()
	r.keys = append(r.keys, key)
	r.mu.Unlock()
	return r.Storage.Get(ctx, key)
}
