// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"slices"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// allWays are all roles of a fleet: a host that may not log in may not by any.
const allWays = "allow-list,ticket,pending"

// enrolled is a TPM that is a host with all roles and has logged in.
func (f *fleet) enrolled(name string) *attacker.TPM {
	f.t.Helper()
	tpm := f.tpm()
	f.write("host/"+name, map[string]any{"tpm_ids": idOf(f.t, tpm), "roles": allWays})
	f.gets(tpm, to(byAllowList))
	return tpm
}

func TestHostStates(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		for _, act := range []string{"disable", "quarantine"} {
			f.write("host/spire/"+act, nil)
			f.write("host/spire/"+act, nil)
			for _, role := range []wayIn{byAllowList, byTicket, byPending} {
				f.fails(tpm, to(role), attest.RuleHostDisabled)
			}
			if state := f.read("host/spire")["state"]; state != act+"d" {
				t.Errorf("state is %v", state)
			}
			// A write to the record does not change its state, nor does one that lists it anew.
			f.write("host/spire", map[string]any{"tpm_ids": idOf(t, tpm), "roles": allWays})
			f.imports(false, line{"name": "spire", "roles": []string{string(byAllowList)}})
			f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
			f.write("host/spire", map[string]any{"roles": allWays})
			f.write("host/spire/accept-reset", nil)
			f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
			f.write("host/spire/enable", nil)
			f.gets(tpm, to(byAllowList))
		}
		// From quarantine to disabled and back it is never active between.
		f.write("host/spire/quarantine", nil)
		f.write("host/spire/disable", nil)
		f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
		for _, act := range []string{"enable", "disable", "quarantine", "accept-reset"} {
			f.refuses(logical.UpdateOperation, "host/nobody/"+act, nil)
		}
	})
}

// A quarantined board does not come back by its other endorsement key: not when
// that is reserved, and not when nobody knew of it.
func TestQuarantinedBoardByItsOtherEK(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		other := f.otherEK(tpm)
		f.write("host/spire/quarantine", nil)
		for _, role := range []wayIn{byAllowList, byTicket, byPending} {
			f.fails(other, to(role), attest.RuleTPMTaken)
		}
		f.fails(other, with(f.anyTicket("auth")), attest.RuleTPMTaken)
		f.write("host/third", map[string]any{"tpm_ids": idOf(t, other), "roles": allWays})
		f.fails(other, to(byAllowList), attest.RuleTPMTaken)

		f.must(logical.DeleteOperation, "host/third", nil)
		f.must(logical.DeleteOperation, tombstonePrefix+idOf(t, other), nil)
		f.write("host/spire", map[string]any{"tpm_ids": []string{idOf(t, tpm), idOf(t, other)}})
		f.fails(other, to(byAllowList), attest.RuleTPMTaken)
		f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
	})
}

// A host's board may change which of its endorsement keys logs in.
func TestReservedTPMIDLogsIn(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		other := f.otherEK(tpm)
		f.write("host/spire", map[string]any{"tpm_ids": []string{idOf(t, other), idOf(t, tpm)}})
		f.fails(tpm, to(byAllowList), attest.RuleTPMTaken)
		c, data := f.answered(other, to(byAllowList))
		if c.Kind != attest.KindActivate {
			t.Errorf("kind %s for a key that never logged in", c.Kind)
		}
		_, err := f.request(logical.UpdateOperation, loginPath, data)
		check(t, err)
		f.write("host/spire", map[string]any{"tpm_ids": []string{idOf(t, tpm), idOf(t, other)}})
		f.gets(tpm, to(byAllowList))
	})
}

// wantGone fails unless a TPM is kept out in every way in there is.
func (f *fleet) wantGone(tpm *attacker.TPM, name string) {
	f.t.Helper()
	for _, role := range []wayIn{byAllowList, byTicket, byPending} {
		f.fails(tpm, to(role), attest.RuleHostDisabled)
	}
	f.fails(tpm, with(f.anyTicket(name)), attest.RuleHostDisabled)
	f.refuses(logical.UpdateOperation, "host/"+name, map[string]any{"tpm_ids": idOf(f.t, tpm)})
	if imported := f.imports(false, line{"name": name, "tpm_ids": []string{idOf(f.t, tpm)}}); len(imported.refused) != 1 {
		f.t.Errorf("imported: %v", imported)
	}
	sum, _ := f.certificateOf(tpm.EKCertificate)
	f.write("host/"+name, map[string]any{"ek_certificate_sha256": sum, "roles": allWays})
	f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
	f.must(logical.DeleteOperation, "host/"+name, nil)
}

// A host that is deleted leaves its TPM out, and its board by another key too,
// until the tombstone is lifted. Then it begins anew.
func TestDeletedHost(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		f.write("host/spire/quarantine", nil)
		f.must(logical.DeleteOperation, "host/spire", nil)
		f.wantGone(tpm, "again")
		other := f.otherEK(tpm)
		f.fails(other, with(f.anyTicket("again")), attest.RuleTPMTaken)
		f.fails(other, to(byPending), attest.RuleTPMTaken)

		id := idOf(t, tpm)
		sum, _ := f.certificateOf(tpm.EKCertificate)
		named := "certificate-" + sum // by which wantGone listed it
		if keys := f.must(logical.ListOperation, tombstonePrefix, nil).Data["keys"].([]string); !slices.Equal(keys, []string{named, id}) {
			t.Errorf("tombstones: %v", keys)
		}
		stone := f.read(tombstonePrefix + id)
		if stone["host"] != "spire" || stone["reason"] != "deleted" || stone["ak_name"] == "" {
			t.Errorf("tombstone is %v", stone)
		}
		f.must(logical.DeleteOperation, tombstonePrefix+id, nil)
		f.fails(tpm, to(byAllowList), attest.RuleHostDisabled)
		f.must(logical.DeleteOperation, tombstonePrefix+named, nil)
		f.fails(tpm, to(byAllowList), attest.RuleHostUnknown)
		f.enrol("spire", tpm)
		if h := f.read("host/spire"); h["last_seen"] != "" || h["ak_name"] != "" || h["state"] != "active" {
			t.Errorf("something is known of it: %v", h)
		}
		c, _ := f.answered(tpm, to(byAllowList))
		if c.Kind != attest.KindActivate {
			t.Errorf("kind %s", c.Kind)
		}
		tpm.Clear() // counters begin anew with the record
		f.gets(tpm, to(byAllowList))
	})
}

// After the tombstone is lifted the board may come by its other key.
func TestLiftedBoardByItsOtherEK(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		f.must(logical.DeleteOperation, "host/spire", nil)
		f.must(logical.DeleteOperation, tombstonePrefix+idOf(t, tpm), nil)
		f.must(logical.DeleteOperation, tombstonePrefix+idOf(t, tpm), nil)
		other := f.otherEK(tpm)
		f.enrol("spire", other)
		f.gets(other, to(byAllowList))
		f.fails(tpm, to(byAllowList), attest.RuleTPMTaken)
	})
}

// A deleted host leaves nothing but tombstones of all that named it and the place
// of its AK.
func TestDeletedHostLeavesNothing(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		before := f.keys()
		tpm := f.tpm()
		reserved := f.otherEK(tpm)
		sum, _ := f.certificateOf(tpm.EKCertificate)
		f.write("host/spire", map[string]any{
			"tpm_ids": []string{idOf(t, tpm), idOf(t, reserved)}, "ek_certificate_sha256": sum, "roles": allWays,
		})
		f.gets(tpm, to(byAllowList))
		f.must(logical.DeleteOperation, "host/spire", nil)
		ak, err := attest.ParseAK(tpm.AK.Public)
		check(t, err)
		want := append(before, tombstonePrefix+idOf(t, tpm), tombstonePrefix+idOf(t, reserved), tombstonePrefix+"certificate-"+sum, akKey(ak))
		slices.Sort(want)
		if got := f.keys(); !slices.Equal(got, want) {
			t.Errorf("left: %v, want %v", got, want)
		}
		for _, name := range []string{idOf(t, tpm), idOf(t, reserved), "certificate-" + sum} {
			f.must(logical.DeleteOperation, tombstonePrefix+name, nil)
		}
		if got := f.keys(); !slices.Equal(got, before) {
			t.Errorf("left: %v, want %v", got, before)
		}
	})
}

func TestReplacedBoard(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		old, board := f.enrolled("spire"), f.tpm()
		f.write("host/spire", map[string]any{"allow_uncertified_ek": true})
		f.write("host/spire/disable", nil)
		f.refuses(logical.UpdateOperation, "host/nobody/replace", map[string]any{"tpm_ids": idOf(t, board)})
		f.refuses(logical.UpdateOperation, "host/spire/replace", nil)
		f.write("host/spire/replace", map[string]any{"tpm_ids": idOf(t, board)})
		h := f.read("host/spire")
		if h["state"] != "disabled" || h["allow_uncertified_ek"] != false || h["ak_name"] != "" || h["last_seen"] != "" ||
			!slices.Equal(h["roles"].([]string), []string{"allow-list", "ticket", "pending"}) {
			t.Errorf("host is %v", h)
		}
		f.fails(board, to(byAllowList), attest.RuleHostDisabled)
		f.write("host/spire/enable", nil)
		f.gets(board, to(byAllowList))
		f.wantGone(old, "again")
		if stone := f.read(tombstonePrefix + idOf(t, old)); stone["reason"] != "replaced" || stone["host"] != "spire" {
			t.Errorf("tombstone is %v", stone)
		}

		// By a certificate, for a board that nobody has booted yet.
		third := f.tpm()
		_, serial := f.certificateOf(third.EKCertificate)
		f.write("host/spire/replace", map[string]any{"ek_issuer_serial": serial})
		if ids := f.read("host/spire")["tpm_ids"]; ids == nil || len(ids.([]attest.TPMID)) != 0 {
			t.Errorf("host has %v", ids)
		}
		f.wantGone(board, "again")
		f.gets(third, to(byAllowList))
		// The old board does not replace the new one before it is lifted.
		f.refuses(logical.UpdateOperation, "host/spire/replace", map[string]any{"tpm_ids": idOf(t, old)})
		f.gets(third, to(byAllowList))
	})
}

func TestUniqueness(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		one, two := f.enrolled("spire"), f.enrolled("auth")
		before := f.content()
		f.refuses(logical.UpdateOperation, "host/third", map[string]any{"tpm_ids": idOf(t, one)})
		f.refuses(logical.UpdateOperation, "host/third", map[string]any{"tpm_ids": []string{idOf(t, f.tpm()), idOf(t, one)}})
		f.refuses(logical.UpdateOperation, "host/auth", map[string]any{"tpm_ids": []string{idOf(t, two), idOf(t, one)}})
		f.refuses(logical.UpdateOperation, "host/auth/replace", map[string]any{"tpm_ids": idOf(t, one)})
		f.refuses(logical.UpdateOperation, "host/third", map[string]any{"tpm_ids": []string{idOf(t, f.tpm()), "sha256-00"}})
		twice := idOf(t, f.tpm())
		f.refuses(logical.UpdateOperation, "host/third", map[string]any{"tpm_ids": []string{twice, twice}})
		f.wantContent(before)

		// An AK Name has one TPM ID: also where both are hosts and both have the key.
		two.AK = one.AK
		f.fails(two, to(byAllowList), attest.RuleTPMTaken)
		f.gets(one, to(byAllowList))

		// A TPM that has another AK gives the place of the first free.
		check(t, one.NewAK())
		f.gets(one, to(byAllowList))
		f.gets(two, to(byAllowList))
	})
}

// What a host may do changes between its challenge and its login: the login goes
// by what is then.
func TestChangeBetweenChallengeAndLogin(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*fleet, *attacker.TPM)
		want   attest.Rule
	}{
		"nothing":    {func(*fleet, *attacker.TPM) {}, ""},
		"disabled":   {func(f *fleet, _ *attacker.TPM) { f.write("host/spire/disable", nil) }, attest.RuleHostDisabled},
		"quarantine": {func(f *fleet, _ *attacker.TPM) { f.write("host/spire/quarantine", nil) }, attest.RuleHostDisabled},
		"disabled and enabled": {func(f *fleet, _ *attacker.TPM) {
			f.write("host/spire/disable", nil)
			f.write("host/spire/enable", nil)
		}, ""},
		"deleted":        {func(f *fleet, _ *attacker.TPM) { f.must(logical.DeleteOperation, "host/spire", nil) }, attest.RuleHostDisabled},
		"without a role": {func(f *fleet, _ *attacker.TPM) { f.write("host/spire", map[string]any{"roles": ""}) }, attest.RuleRole},
		"role changed":   {func(f *fleet, _ *attacker.TPM) { f.write("role/allow-list", map[string]any{"token_ttl": "1m"}) }, attest.RuleState},
		"role's way in changed": {func(f *fleet, _ *attacker.TPM) {
			f.write("role/allow-list", map[string]any{"way_in": "ticket"})
		}, attest.RuleState},
		"role deleted":     {func(f *fleet, _ *attacker.TPM) { f.must(logical.DeleteOperation, "role/allow-list", nil) }, attest.RuleState},
		"audience removed": {func(f *fleet, _ *attacker.TPM) { f.write("config", map[string]any{"audiences": ""}) }, attest.RuleAudience},
		"reserved": {func(f *fleet, tpm *attacker.TPM) {
			f.write("host/spire", map[string]any{"tpm_ids": []string{idOf(f.t, f.tpm()), idOf(f.t, tpm)}})
		}, attest.RuleTPMTaken},
	} {
		for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				eachStorage(t, func(t *testing.T, f *fleet) {
					tpm := f.tpm()
					f.enrol("spire", tpm)
					if kind == attest.KindKnown {
						f.gets(tpm, to(byAllowList))
					}
					c, data := f.answered(tpm, to(byAllowList))
					if c.Kind != kind {
						t.Fatalf("kind %s", c.Kind)
					}
					row.change(f, tpm)
					if row.want != "" {
						f.refusedRequest(data, row.want)
						return
					}
					_, err := f.request(logical.UpdateOperation, loginPath, data)
					check(t, err)
				})
			})
		}
	}
}

// The pin is gone, or another AK is pinned, when a known host answers.
func TestPinGoneBetweenChallengeAndLogin(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		_, data := f.answered(tpm, to(byAllowList))
		id := idOf(t, tpm)
		f.must(logical.DeleteOperation, "host/spire", nil)
		f.must(logical.DeleteOperation, tombstonePrefix+id, nil)
		f.write("host/spire", map[string]any{"tpm_ids": id, "roles": allWays})
		f.refusedRequest(data, attest.RuleState)

		f.gets(tpm, to(byAllowList))
		_, data = f.answered(tpm, to(byAllowList))
		again := tpm.Clone()
		check(t, again.NewAK())
		f.gets(again, to(byAllowList))
		f.refusedRequest(data, attest.RuleState)
	})
}
