// SPDX-License-Identifier: Apache-2.0

package attacker_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	goattest "github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/verify"
)

var kinds = []attacker.KeyKind{attacker.RSA2048, attacker.P256, attacker.P384}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func newVendor(t testing.TB) *attacker.Vendor {
	t.Helper()
	v, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	return v
}

func newTPM(t testing.TB, v *attacker.Vendor, kind attacker.KeyKind) *attacker.TPM {
	t.Helper()
	tpm, err := attacker.NewTPM(v, kind)
	check(t, err)
	return tpm
}

// setting is a verifier with a vendor it believes.
func setting(t testing.TB, role string, kind attacker.KeyKind, pinned bool) attacker.Setting {
	t.Helper()
	vendor := newVendor(t)
	v := newVerifier(t, vendor)
	return attacker.Setting{
		Server: attacker.Handler(v.serve), Role: role, OtherRole: "foreign", Audience: audience,
		Vendor: vendor, EK: kind, Enrol: v.enrol, Pinned: pinned, ReadsLog: policies[role].readsLog,
	}
}

// The honest TPM gets in: by every kind of EK, activated and known, with and
// without a log, with keys of every sort, and again after each thing that honest
// machines do.
func TestHonest(t *testing.T) {
	for _, kind := range kinds {
		for role := range policies {
			if role == "foreign" {
				continue
			}
			t.Run(string(kind)+" "+role, func(t *testing.T) {
				s, err := setting(t, role, kind, false).Open(t.Context())
				check(t, err)
				check(t, s.Honest(t.Context(), s.Host))
				resident, err := attacker.NewKey(nil)
				check(t, err)
				second, err := attacker.NewKey(nil)
				check(t, err)
				for name, change := range map[string]func(){
					"nothing":  func() {},
					"reset":    s.Host.Reset,
					"restart":  s.Host.Restart,
					"cold":     func() { s.Host.Restart(); s.Host.Reset() },
					"measured": func() { check(t, s.Host.Measure(attacker.PlainBoot()...)) },
					"extended": func() { s.Host.SetPCR(tpm2.TPMAlgSHA256, 9, sum(nil)) },
				} {
					change()
					answer, err := s.Host.Attest(t.Context(), s.Server, attacker.Login{
						Role: role, Audience: audience, Keys: [][]byte{{0xff}, {1}}, Resident: []*attacker.Key{resident, second},
					})
					check(t, err)
					if !answer.In() {
						t.Errorf("after %s: %q", name, answer.Errors)
					}
				}
			})
		}
	}
}

// Every attack is refused by its rule, and the host that did nothing still gets
// in.
func TestAttacks(t *testing.T) {
	names := map[string]bool{}
	for _, a := range attacker.Attacks() {
		if names[a.Name] || a.Threat == "" || !a.Rule.Known() {
			t.Errorf("%s: name is not unique, or threat or rule is missing", a.Name)
		}
		names[a.Name] = true
	}
	for name, s := range map[string]attacker.Setting{
		"activate": setting(t, "plain", attacker.P256, false),
		"known":    setting(t, "plain", attacker.P256, true),
		"log":      setting(t, "logged", attacker.P256, true),
	} {
		t.Run(name, func(t *testing.T) {
			for _, a := range attacker.Attacks() {
				if !a.Applies(s) {
					continue
				}
				t.Run(a.Name, func(t *testing.T) {
					scene, err := s.Open(t.Context())
					check(t, err)
					check(t, a.Run(t.Context(), scene))
				})
			}
		})
	}
}

// A server that lets everybody in fails every attack: none of them passes by
// itself.
func TestAttacksNoticeAServerThatChecksNothing(t *testing.T) {
	s := setting(t, "plain", attacker.P256, false)
	scene, err := s.Open(t.Context())
	check(t, err)
	for _, answer := range []*attacker.Answer{
		{Status: 200, Auth: []byte(`{"client_token":"x"}`)},
		{Status: 200, Data: []byte(`{"challenge":"AA=="}`)},
		{Status: 403, Errors: []string{"permission denied"}},
		{Status: 403, Errors: []string{attest.RefusalPrefix + "state"}, Auth: []byte(`{}`)},
		{Status: 403, Errors: []string{attest.RefusalPrefix + "no-rule"}},
		{Status: 418, Errors: []string{attest.RefusalPrefix + "boot-policy"}},
		{Status: 403, Errors: []string{attest.RefusalPrefix + "boot-policy"}},
		{Status: 500},
	} {
		for _, a := range attacker.Attacks() {
			if a.Judge(answer, scene.Pinned) == nil {
				t.Errorf("%s is content with %+v", a.Name, answer)
			}
		}
	}
}

// What verify wraps for a TPM of any kind only that TPM unwraps, for its AK only.
func TestActivate(t *testing.T) {
	vendor := newVendor(t)
	roots, err := verify.ParseRoots(map[attest.EKClass][]byte{attest.ClassVirtual: []byte(vendor.PEM())}, nil)
	check(t, err)
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			tpm, other := newTPM(t, vendor, kind), newTPM(t, vendor, kind)
			ek, err := verify.CheckEK(tpm.EKCertificate, nil, roots, time.Now())
			check(t, err)
			if id, err := tpm.ID(); err != nil || id != ek.TPMID {
				t.Errorf("TPM ID %s, want %s (%v)", id, ek.TPMID, err)
			}
			ak, err := attest.ParseAK(tpm.AK.Public)
			check(t, err)
			for _, size := range []int{0, 1, 15, 16, 17, 32} {
				secret := make([]byte, size)
				_, _ = rand.Read(secret)
				c, err := verify.Credential(rand.Reader, ek, ak, secret)
				check(t, err)
				got, err := tpm.Activate(c)
				check(t, err)
				if string(got) != string(secret) {
					t.Errorf("unwrapped %x, want %x", got, secret)
				}
				if _, err := other.Activate(c); err == nil {
					t.Error("another TPM unwraps it")
				}
				again := tpm.Clone()
				check(t, again.NewAK())
				if _, err := again.Activate(c); err == nil {
					t.Error("unwrapped for another AK")
				}
				c.Blob[len(c.Blob)-1] ^= 1
				if _, err := tpm.Activate(c); err == nil {
					t.Error("unwrapped a bent credential")
				}
			}
			for _, c := range []*attest.Credential{nil, {}, {Blob: []byte{1}, Secret: []byte{0, 1}}, {Secret: make([]byte, 256)}} {
				if _, err := tpm.Activate(c); err == nil {
					t.Errorf("unwrapped %+v", c)
				}
			}
		})
	}
}

// Vendors of every kind certify TPMs that verify believes, through intermediates
// and with the quirks that must be handled.
func TestVendors(t *testing.T) {
	for _, rootKind := range kinds {
		for _, kind := range kinds {
			t.Run(string(rootKind)+" "+string(kind), func(t *testing.T) {
				root, err := attacker.NewVendor(rootKind)
				check(t, err)
				roots, err := verify.ParseRoots(map[attest.EKClass][]byte{attest.ClassHardware: []byte(root.PEM())}, nil)
				check(t, err)
				issuer, err := root.Intermediate(kind)
				check(t, err)
				tpm := newTPM(t, issuer, attacker.P256)
				_, err = verify.CheckEK(tpm.EKCertificate, tpm.Intermediates, roots, time.Now())
				check(t, err)
				negative, err := root.CertifyRaw(tpm.EK.Public(), attacker.NegativeSerial)
				check(t, err)
				_, err = verify.CheckEK(append(negative, make([]byte, 100)...), nil, roots, time.Now())
				check(t, err)
			})
		}
	}
	named, err := attacker.Named("id:53544D20", "ST33", "id:00010102")
	check(t, err)
	vendor := newVendor(t)
	der, err := vendor.Certify(newTPM(t, nil, attacker.P256).EK.Public(), named)
	check(t, err)
	roots, err := verify.ParseRoots(map[attest.EKClass][]byte{attest.ClassHardware: []byte(vendor.PEM())}, nil)
	check(t, err)
	ek, err := verify.CheckEK(der, nil, roots, time.Now())
	check(t, err)
	if ek.Manufacturer != "STM" || ek.Model != "ST33" {
		t.Errorf("TPM of %s, model %s", ek.Manufacturer, ek.Model)
	}
}

// The log that Measure writes is one that go-attestation replays to the PCRs, and
// Boot measures the same again.
func TestEventLog(t *testing.T) {
	tpm := newTPM(t, nil, attacker.P256)
	check(t, tpm.Measure(attacker.PlainBoot()...))
	log, err := tpm.EventLog()
	check(t, err)
	again := newTPM(t, nil, attacker.P256)
	check(t, again.Boot(log))
	parsed, err := goattest.ParseEventLog(log)
	check(t, err)
	for bank, hash := range map[tpm2.TPMAlgID]crypto.Hash{
		tpm2.TPMAlgSHA1: crypto.SHA1, tpm2.TPMAlgSHA256: crypto.SHA256, tpm2.TPMAlgSHA384: crypto.SHA384,
	} {
		var pcrs []goattest.PCR
		for i := range 24 {
			value := tpm.PCR(bank, i)
			if string(value) != string(again.PCR(bank, i)) {
				t.Errorf("PCR %d of bank %v differs after Boot", i, bank)
			}
			pcrs = append(pcrs, goattest.PCR{Index: i, Digest: value, DigestAlg: hash})
		}
		events, err := parsed.Verify(pcrs)
		check(t, err)
		if len(events) < len(attacker.PlainBoot()) {
			t.Errorf("%d events", len(events))
		}
	}
}

// A herd is made by many goroutines with one vendor, and no two are alike.
func TestHerd(t *testing.T) {
	vendor := newVendor(t)
	ids, errs := make([]attest.TPMID, 500), make([]error, 500)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			tpm, err := attacker.NewTPM(vendor, attacker.P256)
			if err == nil {
				ids[i], err = tpm.ID()
			}
			errs[i] = err
		})
	}
	all.Wait()
	check(t, errors.Join(errs...))
	seen := map[attest.TPMID]bool{}
	for _, id := range ids {
		if seen[id] {
			t.Fatalf("%s twice", id)
		}
		seen[id] = true
	}
}

func BenchmarkNewTPM(b *testing.B) {
	vendor := newVendor(b)
	for b.Loop() {
		newTPM(b, vendor, attacker.P256)
	}
}
