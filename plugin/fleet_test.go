// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/x509"
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
			n += alarm["times"].(int)
		}
	}
	if logged := strings.Count(f.logged.String(), `"@message":"alarm"`); logged < n {
		f.t.Errorf("%d alarms, %d in the log", n, logged)
	}
	return n
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
