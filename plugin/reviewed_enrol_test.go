// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"crypto/x509"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// board is one board by two endorsement keys of different types, with an attestation
// key of its own for each.
func (f *fleet) board() (p256, p384 *attacker.TPM) {
	f.t.Helper()
	p384, err := attacker.NewTPM(f.vendor, attacker.P384)
	check(f.t, err)
	p384.EKCertificate, err = f.vendor.Certify(p384.EK.Public(), longLived)
	check(f.t, err)
	return f.tpm(), p384
}

// A board that was denied or deleted does not come back by a key of another type with
// another attestation key where roles take one type.
func TestRoleTakesOneTypeOfEK(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		for _, way := range []wayIn{byAllowList, byTicket, byPending} {
			f.write("role/"+string(way), map[string]any{"ek_key_types": "p256"})
		}
		if types := f.read("role/ticket")["ek_key_types"]; !slices.Equal(types.([]ekKeyType), []ekKeyType{"p256"}) {
			t.Errorf("role says %v", types)
		}
		first, other := f.board()
		f.waits(first, to(byPending))
		f.write(pendingPrefix+idOf(t, first)+"/deny", nil)
		ticket := f.anyTicket("again")
		for _, tpm := range []*attacker.TPM{other, other.Bare()} {
			f.fails(tpm, with(ticket), attest.RuleEKCertificate)
			f.fails(tpm, to(byPending), attest.RuleEKCertificate)
			f.write("host/listed", map[string]any{"tpm_ids": idOf(t, other), "roles": allWays, "allow_uncertified_ek": true})
			f.fails(tpm, to(byAllowList), attest.RuleEKCertificate)
		}
		// A role that takes any type takes it, and one that changes meanwhile does not.
		f.write("role/allow-list", map[string]any{"ek_key_types": "rsa2048,p384"})
		f.gets(other, to(byAllowList))
		f.write("role/allow-list", map[string]any{"ek_key_types": ""})
		f.gets(other, to(byAllowList))
		_, data := f.answered(other, to(byAllowList))
		f.write("role/allow-list", map[string]any{"ek_key_types": "p256"})
		f.refusedRequest(data, attest.RuleState)
		f.refuses(logical.UpdateOperation, "role/ticket", map[string]any{"ek_key_types": "p256,p521"})
	})
}

// The attestation key of a TPM that was denied is kept out as well, by whichever
// endorsement key it comes.
func TestDeniedAttestationKeyIsKeptOut(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		other := f.otherEK(tpm)
		f.waits(tpm, to(byPending))
		f.write(pendingPrefix+idOf(t, tpm)+"/deny", nil)
		f.fails(other, to(byPending), attest.RuleTPMTaken)
		f.fails(other, with(f.anyTicket("again")), attest.RuleTPMTaken)
		f.enrol("listed", other)
		f.fails(other, to(byAllowList), attest.RuleTPMTaken)
		ak, err := attest.ParseAK(tpm.AK.Public)
		check(t, err)
		if name := f.read(tombstonePrefix + idOf(t, tpm))["ak_name"]; akPrefix+name.(string) != akKey(ak) {
			t.Errorf("tombstone has the AK %v", name)
		}
		f.wantWhole()
		f.must(logical.DeleteOperation, tombstonePrefix+idOf(t, tpm), nil)
		f.gets(other, to(byAllowList))
		f.wantWhole()
	})
}

// A TPM that is denied does not take the attestation key from a host that has it.
func TestDeniedLeavesAHostItsAttestationKey(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		other := f.otherEK(tpm)
		f.waits(tpm, to(byPending))
		f.enrol("spire", other)
		f.gets(other, to(byAllowList))
		f.write(pendingPrefix+idOf(t, tpm)+"/deny", nil)
		f.gets(other, to(byAllowList))
		f.wantWhole()
		f.must(logical.DeleteOperation, tombstonePrefix+idOf(t, tpm), nil)
		f.fails(tpm, to(byPending), attest.RuleTPMTaken)
		f.wantWhole()
	})
}

// A CA that takes the name of another does not take the place of a TPM that is listed
// by issuer and serial number.
func TestIssuerSerialIsNotTakenByName(t *testing.T) {
	f := newTransactionalFleet(t)
	chips := f.vendor
	emulators, err := attacker.NewVendor(attacker.P256, longLived)
	check(t, err)
	f.write("config", map[string]any{"hardware_roots": chips.PEM(), "virtual_roots": emulators.PEM()})
	f.write("role/allow-list", map[string]any{"ek_classes": "hardware,virtual"})
	honest := f.tpm()
	_, serial := f.certificateOf(honest.EKCertificate)
	f.write("host/spire", map[string]any{"ek_issuer_serial": serial, "roles": "allow-list"})
	impostor, err := emulators.Intermediate(attacker.P256, longLived, func(c *x509.Certificate) {
		c.Subject, c.RawSubject = chips.Certificate.Subject, chips.Certificate.RawSubject
	})
	check(t, err)
	forged, err := attacker.NewTPM(impostor, attacker.P256)
	check(t, err)
	c, err := x509.ParseCertificate(honest.EKCertificate)
	check(t, err)
	forged.EKCertificate, err = impostor.Certify(forged.EK.Public(), func(x *x509.Certificate) { x.SerialNumber = c.SerialNumber })
	check(t, err)
	f.fails(forged, to(byAllowList), attest.RuleHostUnknown)
	if host := f.gets(honest, to(byAllowList)); host != "spire" {
		t.Errorf("the chip is host %s", host)
	}
}

// Approval gives the roles that the operator says, never those the host asked for.
func TestApprovalNamesTheRoles(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		f.write("role/admin", map[string]any{"way_in": "pending", "ek_classes": "virtual", "pcrs": "7"})
		tpm := f.tpm()
		f.waits(tpm, attacker.Login{Role: "admin", Audience: audience})
		path := pendingPrefix + idOf(t, tpm)
		if role := f.read(path)["role"]; role != "admin" {
			t.Errorf("it asked for %v", role)
		}
		for _, data := range []map[string]any{{"name": "spire"}, {"name": "spire", "roles": ""}} {
			if said := f.refuses(logical.UpdateOperation, path+"/approve", data); !strings.Contains(said, "admin") {
				t.Errorf("the operator hears %q", said)
			}
		}
		f.write(path+"/approve", map[string]any{"name": "spire", "roles": "pending"})
		f.fails(tpm, attacker.Login{Role: "admin", Audience: audience}, attest.RuleRole)
		f.gets(tpm, to(byPending))
	})
}

// A host that was named by its certificate and never logged in is kept out by that
// name when it is deleted or named otherwise, until the tombstone is lifted.
func TestDeletedHostNamedByItsCertificate(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		for field, prefix := range map[string]string{"ek_certificate_sha256": "certificate-", "ek_issuer_serial": "serial-"} {
			tpm := f.tpm()
			sum, serial := f.certificateOf(tpm.EKCertificate)
			name := map[string]string{"certificate-": sum, "serial-": serial}[prefix]
			f.write("host/spire", map[string]any{field: name, "roles": allWays})
			f.write("host/spire/quarantine", nil)
			f.must(logical.DeleteOperation, "host/spire", nil)
			ticket := f.anyTicket("again")
			for _, l := range []attacker.Login{to(byAllowList), to(byPending), with(ticket)} {
				f.fails(tpm, l, attest.RuleHostDisabled)
			}
			if said := f.refuses(logical.UpdateOperation, "host/other", map[string]any{field: name}); !strings.Contains(said, "tombstone/"+prefix+name) {
				t.Errorf("the operator hears %q", said)
			}
			if !strings.Contains(f.lastRefused(), "tombstone/"+prefix+name) {
				t.Errorf("logged: %s", f.lastRefused())
			}
			stone := f.read(tombstonePrefix + prefix + name)
			if stone["host"] != "spire" || stone["reason"] != "deleted" {
				t.Errorf("tombstone is %v", stone)
			}
			f.must(logical.DeleteOperation, tombstonePrefix+prefix+name, nil)
			f.gets(tpm, with(ticket))
			f.must(logical.DeleteOperation, "host/again", nil)
		}
	})
}

// lastRefused is the last line of the log about a refusal.
func (f *fleet) lastRefused() string {
	lines := strings.Split(f.logged.String(), "\n")
	for _, line := range slices.Backward(lines) {
		if strings.Contains(line, `"refused"`) {
			return line
		}
	}
	return ""
}

// Verdicts are about a board: with it they go.
func TestVerdictsGoWithTheBoard(t *testing.T) {
	for name, change := range map[string]func(*bootWorld){
		"replace": func(w *bootWorld) { w.write("host/spire/replace", map[string]any{"tpm_ids": tpmID(77)}) },
		"write":   func(w *bootWorld) { w.write("host/spire", map[string]any{"tpm_ids": tpmID(77)}) },
		"inventory": func(w *bootWorld) {
			w.write("inventory", map[string]any{"hosts": []any{map[string]any{"name": "spire", "tpm_ids": tpmID(77)}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBootWorld(t, allMonitored)
			for _, tpm := range []*attacker.TPM{w.spire, w.second} {
				_, _, err := w.try(tpm, "boot")
				check(t, err)
			}
			state := w.verdict("spire", "boot").StateID
			w.write("host/spire", map[string]any{"roles": "boot"})
			w.verdict("spire", "boot") // the same board
			change(w)
			if resp := w.must(logical.ReadOperation, "verdict/spire", nil); resp != nil {
				t.Errorf("verdict of the board before: %v", resp.Data)
			}
			w.refuses(logical.UpdateOperation, "baseline/fleet/promote", map[string]any{"host": "spire", "role": "boot", "state_id": state})
			w.verdict("second", "boot")
		})
	}
}

// What is not stored is not forgotten either.
func TestFailedChangeForgetsNothing(t *testing.T) {
	physical, err := inmem.NewInmem(nil, nil)
	check(t, err)
	s := &flaky{TransactionalStorage: logical.NewLogicalStorage(physical).(logical.TransactionalStorage)}
	f := newFleet(t, s)
	tpm := f.enrolled("spire")
	seen := f.lastSeen("spire")
	s.commit = errors.New("disk full")
	for path, op := range map[string]logical.Operation{
		"host/spire": logical.DeleteOperation, "host/spire/accept-reset": logical.UpdateOperation,
	} {
		if _, err := f.request(op, path, nil); err == nil {
			t.Errorf("%s succeeded", path)
		}
	}
	if _, err := f.request(logical.UpdateOperation, "host/spire/replace", map[string]any{"tpm_ids": tpmID(1)}); err == nil {
		t.Error("replace succeeded")
	}
	s.commit = nil
	if got := f.lastSeen("spire"); got != seen || got == "" {
		t.Errorf("last seen %q, was %q", got, seen)
	}
	clone := tpm.Clone()
	clone.Counters.Clock = 0
	f.gets(tpm, to(byAllowList))
	f.fails(clone, to(byAllowList), attest.RuleClone)
	f.must(logical.DeleteOperation, "host/spire", nil)
}

// Operators hear of what they may not have meant.
func TestWarnings(t *testing.T) {
	f := newTransactionalFleet(t)
	one, two := tpmID(1), tpmID(2)
	f.write("host/spire", map[string]any{"tpm_ids": one, "roles": "allow-list"})
	f.write("host/auth", map[string]any{"tpm_ids": []string{tpmID(5), tpmID(6)}, "roles": "allow-list"})
	f.waits(f.tpm(), to(byPending))
	for name, row := range map[string]struct {
		do   func() *logical.Response
		says string
	}{
		"role of a host": {func() *logical.Response {
			return f.write("host/new", map[string]any{"tpm_ids": tpmID(3), "roles": "allow-list,nope"})
		}, "no role nope"},
		"role of a ticket": {func() *logical.Response {
			return f.wrapped(map[string]any{"host": "t1", "role": "ticket", "roles": "ticket,nope", "tpm_id": tpmID(9)})
		}, "no role nope"},
		"any TPM": {func() *logical.Response {
			return f.wrapped(map[string]any{"host": "t2", "role": "ticket", "any_tpm": true})
		}, "any_tpm"},
		"role of an inventory": {func() *logical.Response {
			return f.write("inventory", map[string]any{"dry_run": true, "hosts": []any{map[string]any{"name": "x", "tpm_ids": tpmID(4), "roles": "nope"}}})
		}, "no role nope"},
		"board of an inventory": {func() *logical.Response {
			return f.write("inventory", map[string]any{"dry_run": true, "hosts": []any{map[string]any{"name": "spire", "tpm_ids": tpmID(8)}}})
		}, "another TPM logs in for 1 hosts, and the old ones are kept out or reserved: spire"},
		"given up": {func() *logical.Response {
			return f.write("host/spire", map[string]any{"tpm_ids": two})
		}, "tombstone/" + one},
		"reserved": {func() *logical.Response {
			return f.write("host/auth", map[string]any{"tpm_ids": []string{tpmID(6), tpmID(5)}})
		}, tpmID(5) + " is reserved"},
		"no baseline": {func() *logical.Response {
			return f.write("role/boot", map[string]any{"way_in": "allow-list", "pcrs": "7", "baselines": "nope", "pcr_values": "enforce"})
		}, "no baseline nope"},
	} {
		resp := row.do()
		if resp == nil || !strings.Contains(strings.Join(resp.Warnings, "\n"), row.says) {
			t.Errorf("%s: %+v", name, resp)
		}
	}
	f.write("role/used", map[string]any{"way_in": "allow-list", "pcrs": "7", "baselines": "fleet", "pcr_values": "enforce"})
	f.write("baseline/fleet", map[string]any{"components": ""})
	resp := f.must(logical.DeleteOperation, "baseline/fleet", nil)
	if resp == nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "role used names baseline fleet") {
		t.Errorf("baseline that is used: %+v", resp)
	}
	f.write("baseline/unused", map[string]any{"components": ""})
	if resp := f.must(logical.DeleteOperation, "baseline/unused", nil); resp != nil {
		t.Errorf("baseline that is not: %+v", resp)
	}
	f.refuses(logical.UpdateOperation, "host/spire/replace", map[string]any{"tpm_ids": two})
}

// Times that do not fit are refused, not cut.
func TestLongTimesAreRefused(t *testing.T) {
	w := newBootWorld(t, allMonitored)
	_, _, err := w.try(w.spire, "boot")
	check(t, err)
	promotion := map[string]any{"host": "spire", "role": "boot", "state_id": w.verdict("spire", "boot").StateID}
	for _, seconds := range []int{-1, math.MaxInt, math.MaxInt/1_000_000_000 + 1, 1 << 55, math.MinInt} {
		promotion["ttl"] = seconds
		w.refuses(logical.UpdateOperation, "baseline/fleet/promote", promotion)
		w.refuses(logical.UpdateOperation, "role/boot", map[string]any{"renew_after": seconds})
	}
	promotion["ttl"] = int(maxEntryTTL.Seconds())
	w.write("baseline/fleet/promote", promotion)
	w.write("role/boot", map[string]any{"renew_after": int(maxRenewAfter.Seconds())})
}
