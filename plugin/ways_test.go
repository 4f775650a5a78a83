// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// fleet is a mount with a role for each way in, and a vendor whose TPMs cost
// nothing.
type fleet struct {
	*mount
	vendor *attacker.Vendor
}

func newFleet(t testing.TB, s logical.Storage) *fleet {
	t.Helper()
	vendor, err := attacker.NewVendor(attacker.P256, longLived)
	check(t, err)
	f := &fleet{mount: newMount(t, s, "mount-1"), vendor: vendor}
	f.b.challenges.now = func() time.Duration { return time.Duration(f.clock.Add(1)) } // each moment is another
	f.write("config", map[string]any{"virtual_roots": vendor.PEM(), "audiences": audience})
	for _, way := range []wayIn{byAllowList, byTicket, byPending} {
		f.write("role/"+string(way), map[string]any{
			"way_in": string(way), "ek_classes": "virtual,uncertified", "pcrs": "0,7",
		})
	}
	return f
}

// eachStorage runs a test over both kinds of storage.
func eachStorage(t *testing.T, run func(*testing.T, *fleet)) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) { run(t, newFleet(t, s)) })
	}
}

func newTransactionalFleet(t testing.TB) *fleet {
	t.Helper()
	return newFleet(t, storages(t)["transactional"])
}

func (f *fleet) tpm() *attacker.TPM {
	f.t.Helper()
	tpm, err := attacker.NewTPM(f.vendor, attacker.P256)
	check(f.t, err)
	tpm.EKCertificate, err = f.vendor.Certify(tpm.EK.Public(), longLived)
	check(f.t, err)
	return tpm
}

// longLived makes a certificate outlive what a test does with the clock.
func longLived(c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(10, 0, 0) }

// otherEK is the board of a TPM by another of its endorsement keys: the AK is the
// same, because both are of one hierarchy.
func (f *fleet) otherEK(tpm *attacker.TPM) *attacker.TPM {
	f.t.Helper()
	other, ak := f.tpm(), *tpm.AK
	other.AK, other.Counters = &ak, tpm.Counters
	return other
}

func idOf(t testing.TB, tpm *attacker.TPM) string {
	t.Helper()
	id, err := tpm.ID()
	check(t, err)
	return string(id)
}

// enrol lists a TPM under the role of the allow-list.
func (f *fleet) enrol(name string, tpm *attacker.TPM) {
	f.t.Helper()
	f.write("host/"+name, map[string]any{"tpm_ids": idOf(f.t, tpm), "roles": string(byAllowList)})
}

func to(role wayIn) attacker.Login { return attacker.Login{Role: string(role), Audience: audience} }

// attest is one whole login as an honest client does it.
func (f *fleet) attest(tpm *attacker.TPM, l attacker.Login) *attacker.Answer {
	f.t.Helper()
	answer, err := tpm.Attest(f.t.Context(), attacker.Handler(f.serve), l)
	check(f.t, err)
	return answer
}

// gets lets a TPM in, which must succeed, and gives the host that it is.
func (f *fleet) gets(tpm *attacker.TPM, l attacker.Login) string {
	f.t.Helper()
	answer := f.attest(tpm, l)
	if !answer.In() {
		f.t.Fatalf("refused: %v\n%s", answer.Errors, f.lastLogged())
	}
	return f.hostOf(answer)
}

func (f *fleet) hostOf(answer *attacker.Answer) string {
	f.t.Helper()
	_, host, _ := strings.Cut(string(answer.Auth), `"host":"`)
	host, _, found := strings.Cut(host, `"`)
	if !found {
		f.t.Fatalf("no host in %s", answer.Auth)
	}
	return host
}

// fails is a login that must be refused by this rule and leave nothing.
func (f *fleet) fails(tpm *attacker.TPM, l attacker.Login, want attest.Rule) {
	f.t.Helper()
	before := f.content()
	f.wantRule(f.attest(tpm, l), want)
	f.wantContent(before)
}

func (f *fleet) wantRule(answer *attacker.Answer, want attest.Rule) {
	f.t.Helper()
	if answer.In() || answer.Rule() != want || answer.Status != want.Status() {
		f.t.Fatalf("got %d %v %s, want the rule %s\n%s", answer.Status, answer.Errors, answer.Auth, want, f.lastLogged())
	}
}

func (f *fleet) wantContent(want map[string]string) {
	f.t.Helper()
	got := f.content()
	for key := range want {
		if got[key] != want[key] {
			f.t.Errorf("%s was %q and is %q", key, want[key], got[key])
		}
	}
	if !maps.Equal(want, got) {
		f.t.Fatal("what is stored has changed")
	}
}

func (f *fleet) lastLogged() string {
	lines := strings.Split(strings.TrimSpace(f.logged.String()), "\n")
	return lines[len(lines)-1]
}

// answered is the answer of a TPM to a challenge that it gets now.
func (f *fleet) answered(tpm *attacker.TPM, l attacker.Login) (*attest.Challenge, map[string]any) {
	f.t.Helper()
	c, err := tpm.Challenge(f.t.Context(), attacker.Handler(f.serve), l.Role)
	check(f.t, err)
	m, err := tpm.Answer(c, l)
	check(f.t, err)
	return c, body(f.t, m)
}

// refusedRequest is a login message that must be refused by this rule.
func (f *fleet) refusedRequest(data map[string]any, want attest.Rule) {
	f.t.Helper()
	resp, err := f.request(logical.UpdateOperation, loginPath, data)
	if resp != nil {
		f.t.Fatalf("a response beside %v: %+v", err, resp)
	}
	wantRefusal(f.t, err, want)
}

func (f *fleet) read(path string) map[string]any {
	f.t.Helper()
	resp := f.must(logical.ReadOperation, path, nil)
	if resp == nil {
		f.t.Fatalf("%s is not there", path)
	}
	return resp.Data
}

// alarms are how many alarms of a rule there were.
func (f *fleet) alarms(rule attest.Rule) int {
	f.t.Helper()
	n := 0
	for _, alarm := range f.read("statistics")["alarms"].([]map[string]any) {
		if alarm["rule"] == string(rule) {
			n++
		}
	}
	if logged := strings.Count(f.logged.String(), `"@message":"alarm"`); logged < n {
		f.t.Errorf("%d alarms, %d in the log", n, logged)
	}
	return n
}

// A role names exactly one way in.
func TestRoleHasOneWayIn(t *testing.T) {
	f := newTransactionalFleet(t)
	for _, way := range []any{nil, "", "allow-list,ticket", "all", []string{"ticket", "pending"}} {
		data := map[string]any{"pcrs": "7"}
		if way != nil {
			data["way_in"] = way
		}
		resp, err := f.request(logical.UpdateOperation, "role/new", data)
		if err == nil && !resp.IsError() {
			t.Errorf("a role with the way in %v", way)
		}
	}
	if resp := f.must(logical.ReadOperation, "role/new", nil); resp != nil {
		t.Errorf("a refused role is there: %v", resp.Data)
	}

	// One that says it in the storage all the same lets nobody in, listed or not.
	tpm := f.tpm()
	f.enrol("spire", tpm)
	for _, way := range []string{"", "allow-list,ticket"} {
		r, err := load[role](t.Context(), f.s, rolePrefix+string(byAllowList))
		check(t, err)
		r.WayIn = wayIn(way)
		check(t, f.b.change(t.Context(), f.s, func(s logical.Storage) error {
			return save(t.Context(), s, rolePrefix+string(byAllowList), r)
		}))
		f.fails(tpm, to(byAllowList), attest.RuleRole)
	}
}

func TestUnknownHost(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.fails(f.tpm(), to(byAllowList), attest.RuleHostUnknown)
		f.fails(f.tpm(), to(byTicket), attest.RuleHostUnknown)
	})
}

func TestListedByTPMID(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm, other := f.tpm(), f.otherEK(f.tpm())
		f.write("host/spire", map[string]any{
			"tpm_ids": []string{idOf(t, tpm), idOf(t, other)}, "roles": "allow-list,ticket,pending",
		})
		for _, role := range []wayIn{byAllowList, byTicket, byPending} {
			if host := f.gets(tpm, to(role)); host != "spire" {
				t.Errorf("it is host %s", host)
			}
		}
		// The others of the board are reserved.
		for _, role := range []wayIn{byAllowList, byTicket, byPending} {
			f.fails(other, to(role), attest.RuleTPMTaken)
		}
	})
}

// certificateOf names a certificate in both ways that a record can.
func certificateOf(t testing.TB, der []byte) (sum, issuerSerial string) {
	t.Helper()
	h := sha256.Sum256(der)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	serial := c.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...)
	}
	is := sha256.Sum256(append(append([]byte{}, c.RawIssuer...), serial...))
	return hex.EncodeToString(h[:]), hex.EncodeToString(is[:])
}

// A host that is listed by its EK certificate is bound to the TPM ID by its first
// login, and found by that from then on, also with another certificate.
func TestListedByCertificate(t *testing.T) {
	for _, field := range []string{"ek_certificate_sha256", "ek_issuer_serial"} {
		t.Run(field, func(t *testing.T) {
			eachStorage(t, func(t *testing.T, f *fleet) {
				tpm, same := f.tpm(), f.tpm()
				sum, serial := certificateOf(t, tpm.EKCertificate)
				name := map[string]string{"ek_certificate_sha256": sum, "ek_issuer_serial": serial}[field]
				f.write("host/spire", map[string]any{field: strings.ToUpper(name), "roles": "allow-list,pending"})

				f.fails(same, to(byAllowList), attest.RuleHostUnknown)
				f.fails(tpm.Bare(), to(byAllowList), attest.RuleEKCertificate)
				if ids := f.read("host/spire")["tpm_ids"].([]attest.TPMID); len(ids) != 0 {
					t.Fatalf("bound to %v before its first login", ids)
				}
				if host := f.gets(tpm, to(byAllowList)); host != "spire" {
					t.Errorf("it is host %s", host)
				}
				if ids := f.read("host/spire")["tpm_ids"].([]attest.TPMID); len(ids) != 1 || string(ids[0]) != idOf(t, tpm) {
					t.Fatalf("bound to %v", ids)
				}
				before := f.content()
				f.gets(tpm, to(byAllowList))
				f.gets(tpm, to(byPending))
				f.wantContent(before)

				renewed, err := f.vendor.Certify(tpm.EK.Public())
				check(t, err)
				tpm.EKCertificate = renewed
				f.gets(tpm, to(byAllowList))
				f.fails(same, to(byAllowList), attest.RuleHostUnknown)
			})
		})
	}
}

// The certificate that lists a host is the host's alone.
func TestListedCertificateIsTaken(t *testing.T) {
	f := newTransactionalFleet(t)
	tpm, other := f.tpm(), f.tpm()
	sum, serial := certificateOf(t, tpm.EKCertificate)
	f.write("host/spire", map[string]any{"ek_certificate_sha256": sum, "roles": "allow-list"})
	f.refuses(logical.UpdateOperation, "host/auth", map[string]any{"ek_certificate_sha256": sum})
	f.refuses(logical.UpdateOperation, "host/auth", map[string]any{"ek_certificate_sha256": sum, "ek_issuer_serial": serial})

	// Two records name one key in two ways: the first login decides, the other
	// record stays without a TPM.
	f.write("host/auth", map[string]any{"ek_issuer_serial": serial, "roles": "allow-list"})
	if host := f.gets(tpm, to(byAllowList)); host != "spire" {
		t.Errorf("it is host %s", host)
	}
	if host := f.gets(tpm, to(byAllowList)); host != "spire" {
		t.Errorf("it is host %s", host)
	}

	// A record that has a TPM is not given another by a certificate.
	sum, _ = certificateOf(t, other.EKCertificate)
	f.write("host/spire", map[string]any{"ek_certificate_sha256": sum})
	f.fails(other, to(byAllowList), attest.RuleTPMTaken)
}

// First logins of one TPM at once bind it once.
func TestListedByCertificateRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		sum, _ := certificateOf(t, tpm.EKCertificate)
		f.write("host/spire", map[string]any{"ek_certificate_sha256": sum, "roles": "allow-list"})
		var bodies []map[string]any
		for range 8 {
			_, data := f.answered(tpm, to(byAllowList))
			bodies = append(bodies, data)
		}
		if in := f.atOnce(bodies); in != 8 {
			t.Errorf("%d of 8 got in", in)
		}
		if ids := f.read("host/spire")["tpm_ids"].([]attest.TPMID); len(ids) != 1 {
			t.Errorf("bound to %v", ids)
		}
	})
}

// An endorsement key that nobody certified gets in only where the role takes its
// class, a record lists it and that record allows it: never by ticket or pending.
func TestUncertified(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.write("role/strict", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "7"})
		tpm := f.tpm().Bare()
		strict := attacker.Login{Role: "strict", Audience: audience}

		for _, role := range []wayIn{byAllowList, byTicket, byPending} {
			f.fails(tpm, to(role), attest.RuleEKCertificate)
		}
		l := to(byTicket)
		l.Ticket = f.ticket(map[string]any{"host": "spire", "role": "ticket", "tpm_id": idOf(t, tpm)})
		f.fails(tpm, l, attest.RuleEKCertificate)

		f.write("host/spire", map[string]any{"tpm_ids": idOf(t, tpm), "roles": "allow-list,strict"})
		f.fails(tpm, to(byAllowList), attest.RuleEKCertificate)
		f.write("host/spire", map[string]any{"allow_uncertified_ek": true})
		f.fails(tpm, strict, attest.RuleEKCertificate)
		f.gets(tpm, to(byAllowList))
		f.gets(tpm, to(byAllowList))

		// One host's permission is not another's.
		other := f.tpm().Bare()
		f.enrol("auth", other)
		f.fails(other, to(byAllowList), attest.RuleEKCertificate)
		f.write("host/spire", map[string]any{"allow_uncertified_ek": false})
		f.fails(tpm, to(byAllowList), attest.RuleEKCertificate)
	})
}

// What can be known without a challenge's answer is not told: a listed key and an
// unlisted one get the same challenge.
func TestChallengeTellsNothing(t *testing.T) {
	f := newTransactionalFleet(t)
	listed, unlisted, disabled := f.tpm(), f.tpm(), f.tpm()
	f.enrol("spire", listed)
	f.enrol("auth", disabled)
	f.write("host/auth/disable", nil)
	for _, tpm := range []*attacker.TPM{listed, unlisted, disabled, listed.Bare(), unlisted.Bare()} {
		c, err := tpm.Challenge(t.Context(), attacker.Handler(f.serve), string(byAllowList))
		check(t, err)
		if c.Kind != attest.KindActivate {
			t.Errorf("kind %s", c.Kind)
		}
	}
}

// atOnce sends logins at the same time and counts those that get in.
func (f *fleet) atOnce(bodies []map[string]any) (in int) {
	f.t.Helper()
	results := make(chan error, len(bodies))
	start := make(chan struct{})
	for _, data := range bodies {
		go func() {
			<-start
			resp, err := f.b.HandleRequest(context.Background(), &logical.Request{
				Operation: logical.UpdateOperation, Path: loginPath, Data: data, Storage: f.s,
				Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
			})
			if err == nil && (resp == nil || resp.Auth == nil) {
				err = errors.New("neither token nor refusal")
			}
			results <- err
		}()
	}
	close(start)
	for range bodies {
		err := <-results
		if err == nil {
			in++
			continue
		}
		if coded, ok := err.(logical.HTTPCodedError); !ok || !strings.HasPrefix(coded.Error(), attest.RefusalPrefix) { //nolint:errorlint // the plugin protocol looks at the type alone
			f.t.Errorf("got %T %v", err, err)
		}
	}
	return in
}
