// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// waits is a login that must be refused as pending and leave one entry.
func (f *fleet) waits(tpm *attacker.TPM, l attacker.Login) {
	f.t.Helper()
	before := f.content()
	f.wantRule(f.attest(tpm, l), attest.RulePending)
	after := f.content()
	key := pendingPrefix + idOf(f.t, tpm)
	if after[key] == "" {
		f.t.Fatalf("no entry for %s", key)
	}
	delete(after, key)
	if !maps.Equal(before, after) {
		f.t.Fatal("more than the entry has changed")
	}
}

// A proven TPM waits, once, and what an operator sees of it is true.
func TestPendingWaitsOnce(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		now := time.Now()
		f.b.wallClock = func() time.Time { return now }
		tpm, l := f.tpm(), to(byPending)
		l.WantedName = "spire"
		f.waits(tpm, l)
		before := f.content()
		now = now.Add(time.Hour)
		l.WantedName = "auth"
		f.fails(tpm, l, attest.RulePending)
		f.wantContent(before)

		sum, _ := f.certificateOf(tpm.EKCertificate)
		entry := f.read(pendingPrefix + idOf(t, tpm))
		for field, want := range map[string]any{
			"role": "pending", "wanted_name": "spire", "ek_class": "virtual", "ek_certificate_sha256": sum,
			"source_address": "192.0.2.7", "first_seen": now.Add(-time.Hour).UTC().Format(time.RFC3339),
			"model": `"attacker"`,
		} {
			if entry[field] != want {
				t.Errorf("%s is %v, want %v", field, entry[field], want)
			}
		}
		list := f.must(logical.ListOperation, pendingPrefix, nil).Data
		if keys := list["keys"].([]string); !slices.Equal(keys, []string{idOf(t, tpm)}) {
			t.Errorf("listed: %v", keys)
		}
		if info := list["key_info"].(map[string]any)[idOf(t, tpm)].(map[string]any); !maps.Equal(info, entry) {
			t.Errorf("list says %v, read says %v", info, entry)
		}
	})
}

// Only a full proof by a certified TPM of a class that the role takes waits.
func TestPendingNeedsProof(t *testing.T) {
	f := newTransactionalFleet(t)
	f.write("role/hardware", map[string]any{"way_in": "pending", "pcrs": "7"})
	tpm := f.tpm()
	_, err := tpm.Challenge(t.Context(), attacker.Handler(f.serve), string(byPending))
	check(t, err)
	if len(f.keys()) != 5 {
		t.Errorf("a challenge left %v", f.keys())
	}
	lie := func(bend func(*attacker.Login)) attacker.Login {
		l := to(byPending)
		bend(&l)
		return l
	}
	f.fails(tpm, lie(func(l *attacker.Login) { l.Secret = make([]byte, attest.SecretSize) }), attest.RuleEKAK)
	f.fails(tpm, lie(func(l *attacker.Login) { l.Sign = f.tpm().AK.Sign }), attest.RuleSignature)
	f.fails(tpm, lie(func(l *attacker.Login) { l.Audience = "https://other:8200||auth/tpm" }), attest.RuleAudience)
	f.fails(tpm, lie(func(l *attacker.Login) { l.Role = "hardware" }), attest.RuleEKCertificate)
	f.fails(tpm.Bare(), to(byPending), attest.RuleEKCertificate)
	for _, name := range []string{"spire\x1b[2J", "spire.client", "../spire", "root", "SPIRE"} {
		l := to(byPending)
		l.WantedName = name
		f.fails(tpm, l, attest.RuleSyntax)
	}
	// Nor does a board wait that is a host by its other key.
	f.enrol("spire", tpm)
	f.gets(tpm, to(byAllowList))
	f.fails(f.otherEK(tpm), to(byPending), attest.RuleTPMTaken)
}

// What a certificate says is shown in printable ASCII, whoever wrote it.
func TestPendingIsShownQuoted(t *testing.T) {
	f := newTransactionalFleet(t)
	named, err := attacker.Named("id:53544D20", "Spïre\u202e\x1b]gnp", "id:00010002")
	check(t, err)
	tpm := f.tpm()
	tpm.EKCertificate, err = f.vendor.Certify(tpm.EK.Public(), named)
	check(t, err)
	f.waits(tpm, to(byPending))
	entry := f.read(pendingPrefix + idOf(t, tpm))
	for field, value := range entry {
		if strings.ContainsFunc(value.(string), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s is %q", field, value)
		}
	}
	if entry["model"] != `"Sp\u00efre\ufffd\ufffd]gnp"` { // what steers a terminal is taken out, the rest is spelled
		t.Errorf("model is %s", entry["model"])
	}
}

func TestPendingLimit(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.write("config", map[string]any{"pending_limit": 2})
		first, second, third := f.tpm(), f.tpm(), f.tpm()
		f.waits(first, to(byPending))
		f.waits(second, to(byPending))
		f.fails(third, to(byPending), attest.RulePending)
		f.fails(first, to(byPending), attest.RulePending)
		f.write(pendingPrefix+idOf(t, first)+"/approve", map[string]any{"name": "spire", "roles": "pending"})
		f.waits(third, to(byPending))
		f.write("config", map[string]any{"pending_limit": 0})
		f.fails(f.tpm(), to(byPending), attest.RulePending)
	})
}

// Many at once: none waits twice, and no more than the limit.
func TestPendingRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.write("config", map[string]any{"pending_limit": 3})
		var bodies []map[string]any
		for range 5 {
			tpm := f.tpm()
			for range 2 {
				_, data := f.answered(tpm, to(byPending))
				bodies = append(bodies, data)
			}
		}
		if in := f.atOnce(bodies); in != 0 {
			t.Errorf("%d got in", in)
		}
		if waiting := f.must(logical.ListOperation, pendingPrefix, nil).Data["keys"].([]string); len(waiting) != 3 {
			t.Errorf("%d wait", len(waiting))
		}
	})
}

func TestPendingApprove(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm, id := f.tpm(), ""
		id = idOf(t, tpm)
		f.refuses(logical.UpdateOperation, pendingPrefix+id+"/approve", map[string]any{"name": "spire", "roles": "pending"})
		f.waits(tpm, to(byPending))
		for _, name := range []string{"", "root", "Spire", "a.b"} {
			f.refuses(logical.UpdateOperation, pendingPrefix+id+"/approve", map[string]any{"name": name, "roles": "pending"})
		}
		f.write(pendingPrefix+id+"/approve", map[string]any{"name": "spire", "roles": "pending"})
		h := f.read("host/spire")
		if h["way_in"] != "pending" || h["state"] != "active" || !slices.Equal(h["roles"].([]string), []string{"pending"}) {
			t.Errorf("host is %v", h)
		}
		if resp := f.must(logical.ReadOperation, pendingPrefix+id, nil); resp != nil {
			t.Errorf("it waits still: %v", resp.Data)
		}
		f.refuses(logical.UpdateOperation, pendingPrefix+id+"/approve", map[string]any{"name": "auth", "roles": "pending"})

		// The proof before the approval is not one after it.
		c, data := f.answered(tpm, to(byPending))
		if c.Kind != attest.KindActivate {
			t.Errorf("first challenge of kind %s", c.Kind)
		}
		resp, err := f.request(logical.UpdateOperation, loginPath, data)
		check(t, err)
		if resp.Auth.Metadata["host"] != "spire" {
			t.Errorf("it is %v", resp.Auth.Metadata)
		}
		if c, _ = f.answered(tpm, to(byPending)); c.Kind != attest.KindKnown {
			t.Errorf("second challenge of kind %s", c.Kind)
		}
		other := f.tpm()
		f.waits(other, to(byPending))
		f.write(pendingPrefix+idOf(t, other)+"/approve", map[string]any{"name": "auth", "roles": "Pending,allow-list"})
		f.gets(other, to(byAllowList))
	})
}

// Two TPMs approved for one name: one is the host, the other waits on.
func TestPendingApproveRacedByName(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		one, two := f.tpm(), f.tpm()
		f.waits(one, to(byPending))
		f.waits(two, to(byPending))
		approved := make(chan string, 2)
		var wg sync.WaitGroup
		for _, id := range []string{idOf(t, one), idOf(t, two)} {
			wg.Go(func() {
				resp, err := f.request(logical.UpdateOperation, pendingPrefix+id+"/approve", map[string]any{"name": "spire", "roles": "pending"})
				if err == nil && !resp.IsError() {
					approved <- id
				}
			})
		}
		wg.Wait()
		close(approved)
		won := slices.Collect(func(yield func(string) bool) {
			for id := range approved {
				yield(id)
			}
		})
		if len(won) != 1 {
			t.Fatalf("%d approved", len(won))
		}
		if ids := f.read("host/spire")["tpm_ids"].([]attest.TPMID); string(ids[0]) != won[0] {
			t.Errorf("host has %v", ids)
		}
		if waiting := f.must(logical.ListOperation, pendingPrefix, nil).Data["keys"].([]string); len(waiting) != 1 || waiting[0] == won[0] {
			t.Errorf("waiting: %v", waiting)
		}
		// A name that is taken in another way is taken as well.
		for _, tpm := range []*attacker.TPM{one, two} {
			if idOf(t, tpm) != won[0] {
				f.enrol("auth", f.tpm())
				f.refuses(logical.UpdateOperation, pendingPrefix+idOf(t, tpm)+"/approve", map[string]any{"name": "auth", "roles": "pending"})
			}
		}
	})
}

// Denied is denied, in each way in, until an operator lifts it.
func TestPendingDeny(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm, id := f.tpm(), ""
		id = idOf(t, tpm)
		f.refuses(logical.UpdateOperation, pendingPrefix+id+"/deny", nil)
		l := to(byPending)
		l.WantedName = "spire"
		f.waits(tpm, l)
		f.write(pendingPrefix+id+"/deny", nil)
		for _, l := range []attacker.Login{to(byAllowList), to(byTicket), to(byPending), with(f.anyTicket("auth"))} {
			f.fails(tpm, l, attest.RuleHostDisabled)
		}
		stone := f.read(tombstonePrefix + id)
		if stone["reason"] != "denied" || stone["host"] != "" { // the name it wished for is nobody's
			t.Errorf("tombstone is %v", stone)
		}
		if said := f.refuses(logical.UpdateOperation, "host/spire", map[string]any{"tpm_ids": id}); !strings.Contains(said, "denied") {
			t.Errorf("an operator hears %q", said)
		}
		f.must(logical.DeleteOperation, tombstonePrefix+id, nil)
		f.waits(tpm, to(byPending))
	})
}

// A TPM that became a host in another way does not wait any more, so that nobody
// denies an active host.
func TestPendingEndsByAnotherWayIn(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		for name, enrol := range map[string]func(*attacker.TPM){
			"by-hand":   func(tpm *attacker.TPM) { f.enrol("by-hand", tpm) },
			"by-ticket": func(tpm *attacker.TPM) { f.gets(tpm, with(f.anyTicket("by-ticket"))) },
			"by-import": func(tpm *attacker.TPM) {
				f.imports(false, line{"name": "by-import", "tpm_ids": []string{idOf(t, tpm)}})
			},
			"by-certificate": func(tpm *attacker.TPM) {
				sum, _ := f.certificateOf(tpm.EKCertificate)
				f.write("host/by-certificate", map[string]any{"ek_certificate_sha256": sum, "roles": "allow-list"})
				f.gets(tpm, to(byAllowList))
			},
		} {
			tpm := f.tpm()
			f.waits(tpm, to(byPending))
			enrol(tpm)
			if f.read("host/" + name)["state"] != "active" {
				t.Errorf("%s is no host", name)
			}
			if resp := f.must(logical.ReadOperation, pendingPrefix+idOf(t, tpm), nil); resp != nil {
				t.Errorf("%s waits still: %v", name, resp.Data)
			}
		}
	})
}

// A TPM with two certificates waits by whichever it shows.
func TestPendingWithTwoCertificates(t *testing.T) {
	f := newTransactionalFleet(t)
	tpm := f.tpm()
	second := tpm.Clone()
	var err error
	second.EKCertificate, err = f.vendor.Certify(tpm.EK.Public())
	check(t, err)
	for _, tpm := range []*attacker.TPM{tpm, second} {
		_, err := tpm.Challenge(t.Context(), attacker.Handler(f.serve), string(byPending))
		check(t, err)
	}
	f.waits(tpm, to(byPending))
}

func TestPendingIsTidied(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		now := time.Now().Truncate(time.Second)
		f.b.wallClock = func() time.Time { return now }
		old, young := f.tpm(), f.tpm()
		f.waits(old, to(byPending))
		now = now.Add(time.Hour)
		f.waits(young, to(byPending))
		now = now.Add(maxPendingAge - time.Minute)
		if removed := f.must(logical.UpdateOperation, "tidy", nil).Data["pending"]; removed != 1 {
			t.Errorf("removed %v", removed)
		}
		if resp := f.must(logical.ReadOperation, pendingPrefix+idOf(t, old), nil); resp != nil {
			t.Error("it waits still")
		}
		f.fails(young, to(byPending), attest.RulePending)
		now = now.Add(2 * time.Hour)
		check(t, f.b.everyMinute(t.Context(), &logical.Request{Storage: f.s}))
		if left := f.must(logical.ListOperation, pendingPrefix, nil).Data["keys"]; left != nil {
			t.Errorf("waiting: %v", left)
		}
	})
}
