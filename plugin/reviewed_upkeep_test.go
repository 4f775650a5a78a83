// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// A spent ticket is remembered for a month, and as long as its host is there with the
// TPM that spent it: its host may show it again, and a thief raises an alarm.
func TestSpentTicketsAreKept(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		now := time.Now()
		f.b.wallClock = func() time.Time { return now }
		tpm, gone, ticket, unspent := f.tpm(), f.tpm(), f.anyTicket("spire"), f.anyTicket("third")
		other := f.anyTicket("auth")
		f.gets(tpm, with(ticket))
		f.gets(gone, with(other))
		f.must(logical.DeleteOperation, "host/auth", nil)
		tidied := func(want int) {
			t.Helper()
			if n := f.must(logical.UpdateOperation, "tidy", nil).Data["tickets"]; n != want {
				t.Errorf("%v tickets removed, want %d", n, want)
			}
		}
		now = now.Add(25 * time.Hour)
		tidied(1)
		f.fails(f.tpm(), with(unspent), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 0 {
			t.Errorf("%d alarms", n)
		}
		now = now.Add(keepSpent)
		tidied(1)
		f.gets(tpm, with(ticket))
		f.wantRule(f.attest(f.tpm(), with(ticket)), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 1 {
			t.Errorf("%d alarms", n)
		}
		f.write("host/spire/replace", map[string]any{"tpm_ids": tpmID(1)})
		tidied(1)
	})
}

// unhurried fails when somebody reads or lists one of its keys while the records are
// kept from logins.
type unhurried struct {
	logical.Storage
	t      *testing.T
	b      *backend
	prefix string
	reads  int
}

func (u *unhurried) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if strings.HasPrefix(key, u.prefix) {
		u.reads++
		if !u.b.records.TryRLock() {
			u.t.Errorf("%s is read while logins wait", key)
		} else {
			u.b.records.RUnlock()
		}
	}
	return u.Storage.Get(ctx, key)
}

// Nobody waits while tidy looks for what is stale and an inventory is judged.
func TestLoginsDoNotWaitForScans(t *testing.T) {
	f := newTransactionalFleet(t)
	lines := inventory(3)
	f.imports(false, lines...)
	for _, l := range lines {
		check(t, save(t.Context(), f.s, verdictPrefix+l["name"].(string)+"/boot", report{}))
	}
	s := &unhurried{Storage: f.s, t: t, b: f.b, prefix: hostPrefix}
	for path, data := range map[string]map[string]any{
		"tidy":      nil,
		"inventory": {"hosts": text(t, lines), "dry_run": true},
	} {
		s.reads = 0
		_, err := f.b.HandleRequest(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: path, Data: data, Storage: s})
		check(t, err)
		if s.reads == 0 {
			t.Errorf("%s read nothing", path)
		}
	}
}

// What changed between the look and the write is looked at again.
func TestInventoryJudgesAgain(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.imports(false, line{"name": "spire", "tpm_ids": tpmID(1), "roles": "allow-list"})
		plan := func(lines ...map[string]any) *plan {
			pl := newPlan()
			for i, l := range lines {
				check(t, f.b.planLine(t.Context(), f.s, pl, i, l))
			}
			return pl
		}
		// A host that is quarantined meanwhile stays so.
		pl := plan(map[string]any{"name": "spire", "roles": "pending"})
		f.write("host/spire/quarantine", nil)
		check(t, f.b.carryOut(t.Context(), f.s, pl))
		if h := f.read("host/spire"); h["state"] != "quarantined" || h["roles"].([]string)[0] != "pending" {
			t.Errorf("host is %v", h)
		}
		// A TPM that became another's meanwhile is not taken, and nothing of its batch is written.
		pl = plan(map[string]any{"name": "one", "tpm_ids": tpmID(2)}, map[string]any{"name": "two", "tpm_ids": tpmID(3)})
		f.write("host/thief", map[string]any{"tpm_ids": tpmID(3)})
		before := f.content()
		check(t, f.b.carryOut(t.Context(), f.s, pl))
		f.wantContent(before)
		resp := pl.answer(false)
		if refused := resp.Data["refused"].(map[string]any); len(refused) != 1 || !strings.Contains(refused["two"].(string), "thief") {
			t.Errorf("refused: %v", refused)
		}
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "stopped") || len(resp.Data["created"].([]string)) != 0 {
			t.Errorf("answer: %+v", resp)
		}
	})
}

// An import that fails midway says how far it came, and can be done again.
func TestInventoryThatFailsMidway(t *testing.T) {
	s := newCounting(t)
	f := newFleet(t, &limited{counting: s})
	l := f.s.(*limited)
	lines := inventory(inventoryBatch + 50)
	l.left, l.bounded = 1, true
	_, err := f.request(logical.UpdateOperation, "inventory", map[string]any{"hosts": text(t, lines)})
	if err == nil || !strings.Contains(err.Error(), "200 of 250 hosts are written, the last is host-00199") {
		t.Errorf("the operator hears %v", err)
	}
	l.bounded = false
	if got := f.imports(false, lines...); len(got.created) != 50 || len(got.unchanged) != inventoryBatch {
		t.Errorf("again: %d created, %d unchanged", len(got.created), len(got.unchanged))
	}
}

// limited is a storage whose transactions end.
type limited struct {
	*counting
	left    int
	bounded bool
}

func (l *limited) BeginTx(ctx context.Context) (logical.Transaction, error) {
	if l.bounded {
		if l.left == 0 {
			return nil, errors.New("disk full")
		}
		l.left--
	}
	return l.counting.BeginTx(ctx)
}

// The documentation says how lists are paged, and names no field of a role that its
// answer has not.
func TestDocumentedParameters(t *testing.T) {
	f := newTransactionalFleet(t)
	doc := f.must(logical.HelpOperation, "", nil).Data["openapi"].(*framework.OASDocument)
	lists := 0
	for path, item := range doc.Paths {
		if item.Get == nil || !strings.Contains(item.Get.OperationID, "-list") {
			continue
		}
		query := map[string]bool{}
		for _, p := range item.Parameters {
			query[p.Name] = p.In == "query"
		}
		if !query["after"] || !query["limit"] {
			t.Errorf("%s has the parameters %v", path, query)
		}
		lists++
	}
	if lists < 6 {
		t.Errorf("%d lists", lists)
	}
	if roleResponseFields()["name"] != nil {
		t.Error("the answer about a role names the role")
	}
}
