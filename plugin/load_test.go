// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// heap is the memory that is in use, after what nobody needs is gone.
func (f *fleet) heap() uint64 {
	f.logged.mu.Lock()
	f.logged.text = nil // the test's own
	f.logged.mu.Unlock()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// roomForNoise is how far two looks at the heap may differ without anything being
// kept: the flood below would keep several times as much.
const roomForNoise = 2 << 20

// crowd are callers that no record lists.
type crowd struct {
	f        *fleet
	tpms     []*attacker.TPM // certified by a vendor that the mount believes
	requests []map[string]any
	logins   []map[string]any // spent, or never good
}

func newCrowd(f *fleet) *crowd {
	f.t.Helper()
	c := &crowd{f: f}
	for range 16 {
		tpm := f.tpm()
		c.tpms = append(c.tpms, tpm)
		for _, role := range []wayIn{byAllowList, byTicket} {
			for _, tpm := range []*attacker.TPM{tpm, tpm.Bare()} {
				m, err := tpm.Request(string(role))
				check(f.t, err)
				c.requests = append(c.requests, body(f.t, m))
			}
		}
		_, data := f.answered(tpm, to(byAllowList))
		f.refusedRequest(data, attest.RuleHostUnknown)
		c.logins = append(c.logins, data)
	}
	return c
}

// come has the n-th caller do something that gets it no token.
func (c *crowd) come(n int) {
	f := c.f
	f.t.Helper()
	switch {
	case n%50 == 0: // a whole proof
		l := to([]wayIn{byAllowList, byTicket}[n/50%2])
		if n%100 == 0 {
			l.Role, l.Ticket = string(byTicket), make(attest.Ticket, attest.TicketSize)
			_, err := rand.Read(l.Ticket)
			check(f.t, err)
		}
		if f.attest(c.tpms[n/50%len(c.tpms)], l).In() {
			f.t.Fatal("a stranger got in")
		}
	case n%4 == 1: // a role that nobody has
		data := maps.Clone(c.requests[0])
		data["role"] = fmt.Sprintf("role-%d", n)
		_, err := f.request(logical.UpdateOperation, challengePath, data)
		wantRefusal(f.t, err, attest.RuleRole)
	case n%4 == 2: // what was said before
		f.refusedRequest(c.logins[n%len(c.logins)], attest.RuleFreshness)
	case n%4 == 3: // a challenge of nobody's
		data := maps.Clone(c.logins[0])
		data["challenge"] = hex.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(n)))
		f.refusedRequest(data, attest.RuleChallenge)
	default: // a challenge that is never answered
		f.must(logical.UpdateOperation, challengePath, c.requests[n/4%len(c.requests)])
	}
}

// Whoever no record lists can ask and be refused as often as they like: what is
// stored stays as it is, byte for byte, memory is as before, and a host gets in.
func TestFloodOfStrangers(t *testing.T) {
	const callers = 20_000
	f := newTransactionalFleet(t)
	host := f.enrolled("spire")
	c := newCrowd(f)
	for n := range callers / 10 {
		c.come(n)
	}
	content, kept, heap := f.content(), f.b.store.records.Len(), f.heap()
	for n := range callers {
		c.come(n)
	}
	if now := f.heap(); now > heap+roomForNoise {
		t.Errorf("heap was %d and is %d", heap, now)
	}
	if now := f.b.store.records.Len(); now != kept {
		t.Errorf("%d records are kept in memory, were %d", now, kept)
	}
	f.wantContent(content)
	f.gets(host, to(byAllowList))
}

// Proofs that are no good, with a host's own endorsement key, and with its AK too,
// which are no secrets: the host is not locked out for a moment.
func TestFloodOfBadProofs(t *testing.T) {
	t.Parallel()
	const proofs = 10_000
	f := newTransactionalFleet(t)
	host := f.enrolled("spire")
	thief, mirror := host.Clone(), host.Clone() // thief has another AK; mirror has the host's, without its key
	check(t, thief.NewAK())
	other := f.tpm()
	mirror.AK.Key = other.AK.Key
	content := f.content()

	bad := func(tpm *attacker.TPM, want attest.Rule) {
		l := to(byAllowList)
		l.Secret = make([]byte, attest.SecretSize)
		_, data := f.answered(tpm, l)
		f.refusedRequest(data, want)
	}
	_, spoilt := f.answered(thief, to(byAllowList))
	request, err := thief.Request(string(byAllowList))
	check(t, err)
	asks := body(t, request)
	for n := range proofs {
		switch n % 20 {
		case 0:
			bad(thief, attest.RuleEKAK)
		case 10:
			bad(mirror, attest.RuleSignature)
		default: // the quote of another challenge
			data := maps.Clone(spoilt)
			data["challenge"] = f.must(logical.UpdateOperation, challengePath, asks).Data["challenge"]
			f.refusedRequest(data, attest.RuleEKAK)
		}
		if n == proofs/2 {
			f.gets(host, to(byAllowList))
		}
	}
	if before := len(f.logged.String()); before == 0 {
		t.Error("nothing is logged")
	}
	f.gets(host, to(byAllowList))
	if n := f.alarms(attest.RuleClone); n != 0 {
		t.Errorf("%d alarms", n)
	}
	f.wantContent(content)
}

// asked is the answer to a request for a challenge: no rule, or the one it was
// refused by.
func (f *fleet) asked(tpm *attacker.TPM) attest.Rule {
	f.t.Helper()
	m, err := tpm.Request(string(byAllowList))
	check(f.t, err)
	_, err = f.challenge(*m)
	if err == nil {
		return ""
	}
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // the plugin protocol looks at the type alone
	if !ok {
		f.t.Fatalf("got %T %v", err, err)
	}
	return attest.Rule(coded.Error()[len(attest.RefusalPrefix):])
}

// A judgement of an endorsement key is kept for the configuration it was made
// under: the next challenge goes by the next configuration.
func TestJudgementFollowsConfiguration(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		other, err := attacker.NewVendor(attacker.P256)
		check(t, err)
		for _, row := range []struct {
			config map[string]any
			want   attest.Rule
		}{
			{map[string]any{"virtual_roots": other.PEM()}, attest.RuleEKCertificate},
			{map[string]any{"virtual_roots": other.PEM() + f.vendor.PEM()}, ""},
			{map[string]any{"virtual_roots": ""}, attest.RuleEKCertificate},
			{map[string]any{"virtual_roots": f.vendor.PEM()}, ""},
			{map[string]any{"virtual_roots": "", "hardware_roots": f.vendor.PEM()}, attest.RuleEKCertificate},
			{map[string]any{"virtual_roots": f.vendor.PEM(), "hardware_roots": ""}, ""},
		} {
			f.write("config", row.config)
			for range 2 {
				if got := f.asked(tpm); got != row.want {
					t.Errorf("with %v: %q", slicesOfKeys(row.config), got)
				}
			}
		}
		f.gets(tpm, to(byAllowList))
		f.write("role/"+string(byAllowList), map[string]any{"ek_classes": "hardware"})
		if got := f.asked(tpm); got != attest.RuleEKCertificate {
			t.Errorf("with another class: %q", got)
		}
	})
}

func slicesOfKeys(m map[string]any) (keys []string) {
	for key, value := range m {
		keys = append(keys, fmt.Sprintf("%s of %d bytes", key, len(value.(string))))
	}
	return keys
}

// A certificate that is judged good is so until it, or one above it, expires.
func TestJudgementEndsWithTheChain(t *testing.T) {
	for name, row := range map[string]struct{ leaf, above time.Duration }{
		"certificate":  {time.Hour, 20 * time.Hour},
		"intermediate": {20 * time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTransactionalFleet(t)
			now := time.Now()
			f.b.wallClock = func() time.Time { return now }
			until := func(d time.Duration) attacker.Bend {
				return func(c *x509.Certificate) { c.NotAfter = now.Add(d) }
			}
			between, err := f.vendor.Intermediate(attacker.P256, until(row.above))
			check(t, err)
			tpm := f.tpm()
			tpm.EKCertificate, err = between.Certify(tpm.EK.Public(), until(row.leaf))
			check(t, err)
			tpm.Intermediates = between.Chain()
			f.enrol("spire", tpm)
			f.gets(tpm, to(byAllowList))
			now = now.Add(59 * time.Minute)
			f.gets(tpm, to(byAllowList))
			now = now.Add(2 * time.Minute)
			if got := f.asked(tpm); got != attest.RuleEKCertificate {
				t.Errorf("after it expired: %q", got)
			}
			now = now.Add(-4 * time.Hour) // our clock was wrong: before it was valid
			if got := f.asked(tpm); got != attest.RuleEKCertificate {
				t.Errorf("before it was valid: %q", got)
			}
		})
	}
}

// Judgements that are kept are bounded, however a host varies what it sends.
func TestJudgementsAreBounded(t *testing.T) {
	f := newTransactionalFleet(t)
	f.b.judged.byEvidence.Resize(64) // as 16384, in less time
	f.b.judged.byTPM.Resize(64)
	tpm := f.tpm()
	var junk [][]byte
	for range 8 {
		other, err := attacker.NewVendor(attacker.P256)
		check(t, err)
		junk = append(junk, other.Certificate.Raw)
	}
	der := tpm.EKCertificate
	for i := range 256 {
		tpm.EKCertificate = append(slices.Clone(der), byte(i), 0xff) // as an NV index is filled up
		tpm.Intermediates = [][]byte{junk[i%8], junk[i/8%8], junk[i/64%8]}
		if got := f.asked(tpm); got != "" {
			t.Fatalf("refused: %s", got)
		}
	}
	if n := f.b.judged.byEvidence.Len(); n != 1 {
		t.Errorf("one certificate has %d judgements", n)
	}
	for range 100 {
		var err error
		tpm.EKCertificate, err = f.vendor.Certify(tpm.EK.Public())
		check(t, err)
		if got := f.asked(tpm); got != "" {
			t.Fatalf("refused: %s", got)
		}
	}
	if n := f.b.judged.byEvidence.Len(); n != 64 {
		t.Errorf("%d judgements of 101 are kept", n)
	}
	if ids := f.b.judged.byTPM.Keys(); len(ids) != 1 || string(ids[0]) != idOf(t, tpm) {
		t.Errorf("kept: %v", ids)
	}

	// Those that are refused are not kept at all.
	stranger, err := attacker.NewTPM(nil, attacker.P256)
	check(t, err)
	other, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	stranger.EKCertificate, err = other.Certify(stranger.EK.Public())
	check(t, err)
	if got := f.asked(stranger); got != attest.RuleEKCertificate {
		t.Errorf("not refused: %q", got)
	}
	if n := f.b.judged.byTPM.Len(); n != 1 {
		t.Errorf("%d TPMs are kept", n)
	}
}
