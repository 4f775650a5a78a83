// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

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
	eachStorage(t, func(_ *testing.T, f *fleet) {
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
func (f *fleet) certificateOf(der []byte) (sum, issuerSerial string) {
	f.t.Helper()
	h := sha256.Sum256(der)
	c, err := x509.ParseCertificate(der)
	check(f.t, err)
	serial := c.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...)
	}
	is := sha256.Sum256(append(slices.Clone(f.vendor.Certificate.RawSubjectPublicKeyInfo), serial...))
	return hex.EncodeToString(h[:]), hex.EncodeToString(is[:])
}

// A host that is listed by its EK certificate is bound to the TPM ID by its first
// login, and found by that from then on, also with another certificate.
func TestListedByCertificate(t *testing.T) {
	for _, field := range []string{"ek_certificate_sha256", "ek_issuer_serial"} {
		t.Run(field, func(t *testing.T) {
			eachStorage(t, func(t *testing.T, f *fleet) {
				tpm, same := f.tpm(), f.tpm()
				sum, serial := f.certificateOf(tpm.EKCertificate)
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
	sum, serial := f.certificateOf(tpm.EKCertificate)
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
	sum, _ = f.certificateOf(other.EKCertificate)
	f.write("host/spire", map[string]any{"ek_certificate_sha256": sum})
	f.fails(other, to(byAllowList), attest.RuleTPMTaken)
}

// First logins of one TPM at once bind it once.
func TestListedByCertificateRace(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.tpm()
		sum, _ := f.certificateOf(tpm.EKCertificate)
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
