// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// wrapped asks for a ticket as bao write -wrap-ttl does.
func (f *fleet) wrapped(data map[string]any) *logical.Response {
	f.t.Helper()
	resp, err := f.b.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "ticket", Data: data, Storage: f.s,
		WrapInfo: &logical.RequestWrapInfo{TTL: time.Minute},
	})
	check(f.t, err)
	return resp
}

// ticket issues a ticket that must be issued.
func (f *fleet) ticket(data map[string]any) attest.Ticket {
	f.t.Helper()
	resp := f.wrapped(data)
	check(f.t, resp.Error())
	secret, err := secretOf(resp)
	check(f.t, err)
	return secret
}

func secretOf(resp *logical.Response) (attest.Ticket, error) {
	return base64.StdEncoding.DecodeString(resp.Data["ticket"].(string))
}

// anyTicket is a ticket for any TPM.
func (f *fleet) anyTicket(host string) attest.Ticket {
	f.t.Helper()
	return f.ticket(map[string]any{"host": host, "role": "ticket", "any_tpm": true})
}

func with(ticket attest.Ticket) attacker.Login {
	l := to(byTicket)
	l.Ticket = ticket
	return l
}

func (f *fleet) ticketRecord(secret attest.Ticket) map[string]any {
	f.t.Helper()
	return f.read(ticketKey(secret))
}

func TestTicketIsIssuedWrappedOnly(t *testing.T) {
	f := newTransactionalFleet(t)
	good := map[string]any{"host": "spire", "role": "ticket", "any_tpm": true}
	said := f.refuses(logical.UpdateOperation, "ticket", good)
	if !strings.Contains(said, "wrapped") {
		t.Errorf("an operator hears %q", said)
	}
	resp := f.wrapped(good)
	check(t, resp.Error())
	secret, err := base64.StdEncoding.DecodeString(resp.Data["ticket"].(string))
	check(t, err)
	if len(secret) != attest.TicketSize {
		t.Errorf("ticket of %d bytes", len(secret))
	}
	record := f.read("ticket/" + resp.Data["ticket_id"].(string))
	for field, want := range map[string]any{"host": "spire", "role": "ticket", "tpm_id": "", "spent_by": "", "spent_at": ""} {
		if record[field] != want {
			t.Errorf("%s is %v", field, record[field])
		}
	}
	if record["expires"] != resp.Data["expires"] || !slices.Equal(record["roles"].([]string), []string{"ticket"}) {
		t.Errorf("record is %v", record)
	}
	for key, value := range f.content() {
		for _, form := range spellings(secret) {
			if strings.Contains(key, form) || strings.Contains(value, form) {
				t.Errorf("the ticket is stored in %s", key)
			}
		}
	}
}

// spellings are the ways in which a secret could be written down.
func spellings(secret []byte) []string {
	return []string{
		string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
	}
}

func TestTicketMistakes(t *testing.T) {
	f := newTransactionalFleet(t)
	f.enrol("taken", f.tpm())
	id := idOf(t, f.tpm())
	before := f.content()
	for name, bend := range map[string]map[string]any{
		"no host":             {"host": ""},
		"host with a dot":     {"host": "spire.client"},
		"host root":           {"host": "root"},
		"host that is there":  {"host": "taken"},
		"no role":             {"role": ""},
		"role that is none":   {"role": "none"},
		"role of another way": {"role": "allow-list"},
		"no TPM":              {"any_tpm": false},
		"a TPM and any":       {"tpm_id": id},
		"not a TPM ID":        {"any_tpm": false, "tpm_id": strings.ToUpper(id)},
		"roles without role":  {"roles": "other"},
		"too many roles":      {"roles": "ticket" + strings.Repeat(",x", maxHostRoles)},
		"no lifetime":         {"ttl": 0},
		"negative lifetime":   {"ttl": -1},
		"more than a day":     {"ttl": "24h1s"},
	} {
		data := map[string]any{"host": "spire", "role": "ticket", "any_tpm": true}
		maps.Copy(data, bend)
		if resp := f.wrapped(data); !resp.IsError() {
			t.Errorf("%s: issued", name)
		}
	}
	f.wantContent(before)
}

// A ticket makes a host of one TPM, once. The same TPM gets in again with it,
// because it may not have heard the answer; another does not, and operators hear
// of it.
func TestTicketIsSpentOnce(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		secret := f.ticket(map[string]any{"host": "spire", "role": "ticket", "roles": "ticket,pending", "any_tpm": true})
		tpm, thief := f.tpm(), f.tpm()
		if host := f.gets(tpm, with(secret)); host != "spire" {
			t.Errorf("it is host %s", host)
		}
		h := f.read("host/spire")
		if h["way_in"] != "ticket" || h["state"] != "active" || !slices.Equal(h["roles"].([]string), []string{"ticket", "pending"}) {
			t.Errorf("host is %v", h)
		}
		if spent := f.ticketRecord(secret); spent["spent_by"] != idOf(t, tpm) || spent["spent_at"] == "" {
			t.Errorf("ticket is %v", spent)
		}
		before := f.content()
		f.gets(tpm, with(secret))
		f.gets(tpm, to(byTicket))
		f.wantContent(before)
		if n := f.alarms(attest.RuleTicket); n != 0 {
			t.Errorf("%d alarms about an honest host", n)
		}
		f.fails(thief, with(secret), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 1 {
			t.Errorf("%d alarms about a thief", n)
		}
	})
}

// A host that is there is no better thief than a stranger.
func TestTicketShownByAnotherHost(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		host, other := f.tpm(), f.tpm()
		f.write("host/auth", map[string]any{"tpm_ids": idOf(t, host), "roles": "ticket"})
		spent := f.anyTicket("spire")
		f.gets(other, with(spent))
		f.fails(host, with(spent), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 1 {
			t.Errorf("%d alarms about a spent ticket", n)
		}
		bound := f.ticket(map[string]any{"host": "third", "role": "ticket", "tpm_id": idOf(t, f.tpm())})
		f.fails(host, with(bound), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 2 {
			t.Errorf("%d alarms after a ticket of another TPM", n)
		}
		f.fails(host, with(make(attest.Ticket, attest.TicketSize)), attest.RuleTicket)
	})
}

// A ticket never changes a host that is there, not even the one it names.
func TestTicketNeverChangesAHost(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		named, unnamed := f.anyTicket("spire"), f.anyTicket("third")
		f.write("host/spire", map[string]any{"tpm_ids": idOf(t, tpm), "roles": "ticket"})
		f.fails(tpm, with(named), attest.RuleTicket)
		f.fails(tpm, with(unnamed), attest.RuleTicket)
		f.gets(tpm, to(byTicket))
		f.fails(f.tpm(), with(named), attest.RuleNameTaken)
		if spent := f.ticketRecord(named); spent["spent_by"] != "" {
			t.Errorf("ticket is %v", spent)
		}
		// One that is listed by its certificate only is there as well.
		listed := f.tpm()
		sum, _ := f.certificateOf(listed.EKCertificate)
		f.write("host/listed", map[string]any{"ek_certificate_sha256": sum, "roles": "ticket"})
		f.fails(listed, with(unnamed), attest.RuleTicket)
		if host := f.gets(listed, to(byTicket)); host != "listed" {
			t.Errorf("it is host %s", host)
		}
	})
}

func TestTicketForOneTPM(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		secret := f.ticket(map[string]any{"host": "spire", "role": "ticket", "tpm_id": idOf(t, tpm)})
		f.fails(f.tpm(), with(secret), attest.RuleTicket)
		if n := f.alarms(attest.RuleTicket); n != 1 {
			t.Errorf("%d alarms about a stolen ticket", n)
		}
		f.gets(tpm, with(secret))
	})
}

func TestTicketThatWillNotDo(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		now := time.Now()
		f.b.wallClock = func() time.Time { return now }
		f.write("role/other", map[string]any{"way_in": "ticket", "ek_classes": "virtual", "pcrs": "7"})
		tpm := f.tpm()
		secret := f.ticket(map[string]any{"host": "spire", "role": "ticket", "roles": "ticket,other", "any_tpm": true, "ttl": "10m"})

		f.fails(tpm, with(make(attest.Ticket, attest.TicketSize)), attest.RuleTicket)
		wrong := with(secret)
		wrong.Role = "other"
		f.fails(tpm, wrong, attest.RuleTicket)
		// A role whose way in is another has no use for tickets.
		wrong.Role = string(byAllowList)
		f.fails(tpm, wrong, attest.RuleHostUnknown)

		now = now.Add(10*time.Minute + time.Second)
		f.fails(tpm, with(secret), attest.RuleTicket)
		if removed := f.must(logical.UpdateOperation, "tidy", nil).Data["tickets"]; removed != 1 {
			t.Errorf("tidy removed %v tickets", removed)
		}
		f.fails(tpm, with(secret), attest.RuleTicket)

		deleted := f.anyTicket("spire")
		f.must(logical.DeleteOperation, ticketKey(deleted), nil)
		f.fails(tpm, with(deleted), attest.RuleTicket)
	})
}

// The quote speaks of the ticket: one that is added, taken away or exchanged on
// the way is noticed, and nothing is spent.
func TestTicketIsBoundByTheQuote(t *testing.T) {
	f := newTransactionalFleet(t)
	tpm, secret, other := f.tpm(), f.anyTicket("spire"), f.anyTicket("third")
	for name, l := range map[string]attacker.Login{
		"sent and not quoted": {Message: func(m *attest.LoginRequest) { m.Ticket = secret }},
		"quoted and not sent": {Ticket: secret, Message: func(m *attest.LoginRequest) { m.Ticket = nil }},
		"exchanged":           {Ticket: secret, Message: func(m *attest.LoginRequest) { m.Ticket = other }},
		"one bit turned":      {Ticket: secret, Message: func(m *attest.LoginRequest) { m.Ticket = slices.Clone(secret); m.Ticket[0] ^= 1 }},
	} {
		t.Run(name, func(*testing.T) {
			l.Role, l.Audience = string(byTicket), audience
			f.fails(tpm, l, attest.RuleEKAK) // its AK is not pinned: S is not proven
		})
	}
	for name, size := range map[string]int{"too short": attest.TicketSize - 1, "too long": attest.TicketSize + 1} {
		t.Run(name, func(*testing.T) { f.fails(tpm, with(make(attest.Ticket, size)), attest.RuleSyntax) })
	}
	f.gets(tpm, with(secret))
}

// The AK of a board that is a host already, by whichever of its endorsement keys
// it comes.
func TestTicketForABoardThatIsAHost(t *testing.T) {
	eachStorage(t, func(_ *testing.T, f *fleet) {
		tpm := f.tpm()
		f.enrol("spire", tpm)
		f.gets(tpm, to(byAllowList))
		secret := f.anyTicket("third")
		f.fails(f.otherEK(tpm), with(secret), attest.RuleTPMTaken)
		f.write("host/spire/quarantine", nil)
		f.fails(f.otherEK(tpm), with(secret), attest.RuleTPMTaken)
		f.gets(f.tpm(), with(secret))
	})
}

// A ticket is in nobody's log, storage or error, whatever is done with it.
func TestTicketIsNotTold(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		secret, other := f.anyTicket("spire"), f.anyTicket("third")
		tpm := f.tpm()
		var said []string
		for _, l := range []attacker.Login{
			with(secret), with(secret), with(other), {Role: "ticket", Audience: audience, Ticket: secret, Message: func(m *attest.LoginRequest) { m.Ticket[0] ^= 1 }},
		} {
			answer, err := json.Marshal(f.attest(tpm, l))
			check(t, err)
			said = append(said, string(answer))
		}
		f.fails(f.tpm(), with(secret), attest.RuleTicket)
		statistics, err := json.Marshal(f.read("statistics"))
		check(t, err)
		said = append(said, string(statistics), f.logged.String())
		for key, value := range f.content() {
			said = append(said, key, value)
		}
		for _, text := range said {
			for _, secret := range []attest.Ticket{secret, other} {
				for _, form := range spellings(secret) {
					if strings.Contains(text, form) {
						t.Fatalf("the ticket is in %.200s", text)
					}
				}
			}
		}
	})
}
