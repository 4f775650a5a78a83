// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

type bend = func(*x509.Certificate)

// rootLike is a root whose template is bent.
func rootLike(t testing.TB, b bend) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	a := &authority{key: key}
	template := a.template(t)
	b(template)
	a.certificate = a.vouch(t, template, key.Public())
	return a
}

func extension(critical bool, value []byte, id ...int) bend {
	return func(x *x509.Certificate) {
		x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
	}
}

func pathLength(n int) bend {
	return func(x *x509.Certificate) { x.MaxPathLen, x.MaxPathLenZero = n, n == 0 }
}

func named(as *authority) bend {
	return func(x *x509.Certificate) { x.Subject = as.certificate.Subject }
}

func from(at time.Time) bend  { return func(x *x509.Certificate) { x.NotBefore = at } }
func until(at time.Time) bend { return func(x *x509.Certificate) { x.NotAfter = at } }

// line is authorities one below another, the root first.
func line(t testing.TB, length int) (all []*authority) {
	all = append(all, newAuthority(t, elliptic.P256()))
	for len(all) < length {
		all = append(all, all[len(all)-1].below(t, nil))
	}
	return all
}

func certificates(list ...*authority) (all []*x509.Certificate) {
	for _, a := range list {
		all = append(all, a.certificate)
	}
	return all
}

// situation is what an operator configured and an EK certificate.
type situation struct {
	name                        string
	hardware, firmware, virtual []*x509.Certificate
	intermediates               []*x509.Certificate
	ek                          []byte
	later                       time.Duration // than now
	kept                        int           // chains
	want                        attest.EKClass
}

func (s situation) roots(t testing.TB) *verify.Roots {
	t.Helper()
	r, err := verify.ParseRoots(byClass{
		attest.ClassHardware: toPEM(s.hardware...), attest.ClassFirmware: toPEM(s.firmware...), attest.ClassVirtual: toPEM(s.virtual...),
	}, toPEM(s.intermediates...))
	check(t, err)
	return r
}

// What is kept of the configured intermediates changes no verdict: class, validity
// and refusal are those of package x509, which is asked for everything as soon as
// a host sends a certificate that is not configured.
func TestKeptChainsChangeNothing(t *testing.T) {
	stranger := [][]byte{newAuthority(t, elliptic.P256()).certificate.Raw}
	now := time.Now()
	for _, s := range slices.Concat(plainSituations(t, now), crossSituations(t, now), oddSituations(t)) {
		t.Run(s.name, func(t *testing.T) {
			r, at := s.roots(t), now.Add(s.later)
			kept, err := r.Kept(s.ek, at)
			check(t, err)
			if kept != s.kept {
				t.Errorf("%d chains kept, want %d", kept, s.kept)
			}
			want := attest.Rule("")
			if s.want == "" {
				want = attest.RuleEKCertificate
			}
			whole, err := verify.CheckEK(s.ek, stranger, r, at)
			wantRule(t, err, want)
			for range 2 { // found, then remembered
				got, err := verify.CheckEK(s.ek, nil, r, at)
				wantRule(t, err, want)
				if want == "" && (got.Class != s.want || !reflect.DeepEqual(sameButPointers(got), sameButPointers(whole))) {
					t.Errorf("%+v, want class %s and %+v", got, s.want, whole)
				}
			}
		})
	}
}

// sameButPointers is what a chain has a say in.
func sameButPointers(ek *verify.EK) *verify.EK {
	return &verify.EK{
		TPMID: ek.TPMID, Class: ek.Class, Certificate: ek.Certificate, IssuerSerial: ek.IssuerSerial, Sent: ek.Sent,
		NotBefore: ek.NotBefore, NotAfter: ek.NotAfter,
	}
}

func plainSituations(t *testing.T, now time.Time) []situation {
	public := newCast(t).liar.EK.Public()
	l := line(t, 7)
	all := certificates(l...)
	ek := func(depth int, b bend) []byte { return l[depth].certify(t, public, b) }
	root, hardware := all[:1], attest.ClassHardware
	soon := now.Add(time.Hour).Truncate(time.Second)
	gone, dies := l[0].below(t, until(now.Add(-time.Minute))), l[0].below(t, until(soon))
	belowGone, belowDies := gone.below(t, nil), dies.below(t, nil)
	fake := rootLike(t, named(l[1]))
	return []situation{
		{name: "one intermediate", hardware: root, intermediates: all[1:2], ek: ek(1, nil), kept: 1, want: hardware},
		{name: "two", hardware: root, intermediates: all[1:3], ek: ek(2, nil), kept: 1, want: hardware},
		{name: "four", hardware: root, intermediates: all[1:5], ek: ek(4, nil), kept: 1, want: hardware},
		{name: "five", hardware: root, intermediates: all[1:6], ek: ek(5, nil), kept: 1},
		{name: "a root in the middle", hardware: all[2:3], intermediates: all[1:5], ek: ek(4, nil), kept: 1, want: hardware},
		{name: "directly below the root", hardware: root, intermediates: all[1:3], ek: ek(0, nil), want: hardware},
		{name: "root taken out", hardware: certificates(newAuthority(t, elliptic.P256())), intermediates: all[:3], ek: ek(2, nil)},
		{name: "no roots", intermediates: all[:3], ek: ek(2, nil)},
		{name: "a link is missing", hardware: root, intermediates: all[2:3], ek: ek(2, nil)},
		{name: "EK expired", hardware: root, intermediates: all[1:2], ek: ek(1, until(now.Add(-time.Minute)))},
		{name: "EK not yet valid", hardware: root, intermediates: all[1:2], ek: ek(1, from(now.Add(time.Minute)))},
		{name: "EK signed by another of the name", hardware: root, intermediates: all[1:2], ek: fake.certify(t, public, nil)},
		{name: "EK bent", hardware: root, intermediates: all[1:2], ek: flip(ek(1, nil), -1)},
		{name: "issuer expired", hardware: root, intermediates: certificates(gone), ek: gone.certify(t, public, nil)},
		{name: "upper expired", hardware: root, intermediates: certificates(gone, belowGone), ek: belowGone.certify(t, public, nil)},
		{name: "upper expires, before", hardware: root, intermediates: certificates(dies, belowDies), ek: belowDies.certify(t, public, nil), kept: 1, want: hardware},
		{name: "upper expires, its last moment", hardware: root, intermediates: certificates(dies, belowDies), ek: belowDies.certify(t, public, nil), later: soon.Sub(now), kept: 1, want: hardware},
		{name: "upper expires, after", hardware: root, intermediates: certificates(dies, belowDies), ek: belowDies.certify(t, public, nil), later: soon.Sub(now) + 1},
		{name: "root expired", hardware: root, intermediates: all[1:2], ek: ek(1, until(now.Add(72*time.Hour))), later: 48 * time.Hour},
	}
}

// crossSituations have an issuer with several certificates or a name with several
// issuers.
func crossSituations(t *testing.T, now time.Time) []situation {
	public := newCast(t).liar.EK.Public()
	strong, weak := newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256())
	issuer := strong.below(t, nil)
	twin := strong.below(t, named(issuer))
	ek, byTwin := issuer.certify(t, public, nil), twin.certify(t, public, nil)
	a, b, own := certificates(strong), certificates(weak), issuer.certificate
	begins := now.Add(time.Hour).Truncate(time.Second)
	cross := weak.cross(t, issuer, nil)
	gone, later := weak.cross(t, issuer, until(now.Add(-time.Minute))), weak.cross(t, issuer, from(begins))
	short := weak.cross(t, issuer, until(now.Add(30*time.Minute)))
	noCA := weak.cross(t, issuer, func(x *x509.Certificate) { x.IsCA = false })
	middle := strong.below(t, nil)
	low := middle.below(t, nil)
	crossMiddle := weak.cross(t, middle, nil)
	byLow := low.certify(t, public, nil)
	hardware, virtual := attest.ClassHardware, attest.ClassVirtual
	type list = []*x509.Certificate
	return []situation{
		{name: "crossed", hardware: a, virtual: b, intermediates: list{own, cross}, ek: ek, kept: 2, want: virtual},
		{name: "crossed by the one that lasts longer", virtual: b, intermediates: list{short, cross}, ek: ek, kept: 2, want: virtual},
		{name: "crossed higher up", hardware: a, virtual: b, intermediates: list{low.certificate, middle.certificate, crossMiddle}, ek: byLow, kept: 2, want: virtual},
		{name: "crossed by one that is not believed", hardware: a, intermediates: list{own, cross}, ek: ek, kept: 1, want: hardware},
		{name: "crossed, and that expired", hardware: a, virtual: b, intermediates: list{own, gone}, ek: ek, kept: 1, want: hardware},
		{name: "crossed, not yet", hardware: a, virtual: b, intermediates: list{own, later}, ek: ek, kept: 1, want: hardware},
		{name: "crossed, now", hardware: a, virtual: b, intermediates: list{own, later}, ek: ek, later: begins.Sub(now), kept: 2, want: virtual},
		{name: "two keys of a name", hardware: a, intermediates: list{own, twin.certificate}, ek: ek, kept: 1, want: hardware},
		{name: "two keys of a name, the second", hardware: a, intermediates: list{own, twin.certificate}, ek: byTwin, kept: 1, want: hardware},
		{name: "two keys of a name, the other one", hardware: a, intermediates: list{own}, ek: byTwin},
		{name: "three certificates, two keys", hardware: a, virtual: b, intermediates: list{own, twin.certificate, cross}, ek: ek, kept: 2, want: virtual},
		{name: "the issuer is a root of another class", hardware: a, virtual: list{own}, intermediates: list{own}, ek: ek, want: virtual},
		{name: "the issuer's other certificate is a root", hardware: a, virtual: list{cross}, intermediates: list{own}, ek: ek, want: virtual},
		{name: "a root above a root", hardware: a, virtual: list{middle.certificate}, intermediates: list{low.certificate, middle.certificate}, ek: byLow, kept: 2, want: virtual},
		{name: "crossed, but as no CA", hardware: a, virtual: b, intermediates: list{own, noCA}, ek: ek, kept: 1, want: hardware},
		{name: "configured twice", hardware: a, intermediates: list{own, own}, ek: ek, kept: 1, want: hardware},
	}
}

// oddSituations have certificates that restrict each other, or are no authority's.
func oddSituations(t *testing.T) []situation {
	public := newCast(t).liar.EK.Public()
	root := newAuthority(t, elliptic.P256())
	a, hardware := certificates(root), attest.ClassHardware
	constraints, err := asn1.Marshal(struct {
		Skip int `asn1:"tag:0"`
	}{5})
	check(t, err)
	names := func(x *x509.Certificate) {
		x.PermittedDNSDomainsCritical, x.PermittedDNSDomains = true, []string{"funlab.casa"}
	}
	var all []situation
	add := func(name string, b bend, kept int, want attest.EKClass) {
		issuer := root.below(t, b)
		all = append(all, situation{name: name, hardware: a, intermediates: certificates(issuer), ek: issuer.certify(t, public, nil), kept: kept, want: want})
		upper := root.below(t, b)
		issuer = upper.below(t, nil)
		all = append(all, situation{name: name + ", higher up", hardware: a, intermediates: certificates(upper, issuer), ek: issuer.certify(t, public, nil), kept: kept, want: want})
	}
	add("not a CA", func(x *x509.Certificate) { x.IsCA = false }, 0, "")
	add("no basic constraints", func(x *x509.Certificate) { x.BasicConstraintsValid, x.IsCA = false, false }, 0, "")
	add("may not sign certificates", func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageDigitalSignature }, 0, "")
	add("signed with SHA-1", func(x *x509.Certificate) { x.SignatureAlgorithm = x509.ECDSAWithSHA1 }, 0, "")
	add("unknown critical extension", extension(true, []byte{5, 0}, 1, 2, 3), 0, "")
	add("unknown extension", extension(false, []byte{5, 0}, 1, 2, 3), 1, hardware)
	add("name constraints", names, 0, hardware)
	add("policy constraints", extension(true, constraints, 2, 5, 29, 36), 0, hardware)
	add("path length 1", pathLength(1), 1, hardware)

	flat := rootLike(t, pathLength(0))
	below, upper := flat.below(t, nil), root.below(t, pathLength(0))
	issuer := upper.below(t, nil)
	bare := root.below(t, nil)
	ek := func(b bend) []byte { return bare.certify(t, public, b) }
	return append(all,
		situation{name: "path length 0 of the root", hardware: certificates(flat), intermediates: certificates(below), ek: below.certify(t, public, nil)},
		situation{name: "path length 0, directly below", hardware: certificates(flat), ek: flat.certify(t, public, nil), want: hardware},
		situation{name: "path length 0, one too many", hardware: a, intermediates: certificates(upper, issuer), ek: issuer.certify(t, public, nil)},
		situation{name: "path length 0 of the issuer", hardware: a, intermediates: certificates(upper), ek: upper.certify(t, public, nil), kept: 1, want: hardware},
		situation{name: "EK with an unknown critical extension", hardware: a, intermediates: certificates(bare), ek: ek(extension(true, []byte{5, 0}, 1, 2, 3))},
		situation{name: "EK with policy constraints", hardware: a, intermediates: certificates(bare), ek: ek(extension(true, constraints, 2, 5, 29, 36)), want: hardware},
		situation{name: "EK of its issuer's name", hardware: a, intermediates: certificates(bare), ek: ek(named(bare)), want: hardware},
		situation{name: "EK with a negative serial number", hardware: a, intermediates: certificates(bare), ek: bare.withSerial(t, ek(nil), 0x80, 1), kept: 1, want: hardware},
	)
}

// An EK certificate that is a root itself is nobody's word for the TPM, also where
// a configured intermediate has signed it.
func TestKeptChainsOfAPinnedEK(t *testing.T) {
	root := newAuthority(t, elliptic.P256())
	issuer := root.below(t, nil)
	der := issuer.certify(t, newCast(t).liar.EK.Public(), nil)
	own, err := x509.ParseCertificate(der)
	check(t, err)
	r, err := verify.ParseRoots(hardware(toPEM(root.certificate, own)), toPEM(issuer.certificate))
	check(t, err)
	_, err = verify.CheckEK(der, nil, r, time.Now())
	wantRule(t, err, attest.RuleEKCertificate)
}

// A certificate that only the host knows counts as before.
func TestKeptChainsAndWhatAHostSends(t *testing.T) {
	strong, weak := newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256())
	issuer := strong.below(t, nil)
	cross := weak.cross(t, issuer, nil)
	der := issuer.certify(t, newCast(t).liar.EK.Public(), nil)
	r, err := verify.ParseRoots(byClass{
		attest.ClassHardware: toPEM(strong.certificate), attest.ClassVirtual: toPEM(weak.certificate),
	}, toPEM(issuer.certificate))
	check(t, err)
	for _, row := range []struct {
		sent [][]byte
		want attest.EKClass
	}{
		{nil, attest.ClassHardware},
		{[][]byte{issuer.certificate.Raw}, attest.ClassHardware},
		{[][]byte{cross.Raw}, attest.ClassVirtual},
		{nil, attest.ClassHardware},
	} {
		ek, err := verify.CheckEK(der, row.sent, r, time.Now())
		wantRule(t, err, "")
		if ek.Class != row.want {
			t.Errorf("%d sent: class %s, want %s", len(row.sent), ek.Class, row.want)
		}
	}
}

// One configuration serves many, each with a clock of his own: what was found at
// one time is not held for true at another, to the nanosecond.
func TestKeptChainsAtAnyTime(t *testing.T) {
	strong, weak, now := newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256()), time.Now()
	begins, ends := now.Add(time.Hour).Truncate(time.Second), now.Add(2*time.Hour).Truncate(time.Second)
	upper := strong.below(t, until(ends))
	issuer := upper.below(t, nil)
	cross := weak.cross(t, issuer, from(begins))
	der := issuer.certify(t, newCast(t).liar.EK.Public(), nil)
	r, err := verify.ParseRoots(byClass{
		attest.ClassVirtual: toPEM(strong.certificate), attest.ClassHardware: toPEM(weak.certificate),
	}, toPEM(upper.certificate, issuer.certificate, cross))
	check(t, err)
	moments := []struct {
		at   time.Time
		kept int
		want attest.EKClass
	}{
		{now, 1, attest.ClassVirtual}, {begins.Add(-1), 1, attest.ClassVirtual}, {begins, 2, attest.ClassVirtual},
		{ends, 2, attest.ClassVirtual}, {ends.Add(1), 1, attest.ClassHardware},
	}
	judge := func(n int) {
		m := moments[n]
		kept, err := r.Kept(der, m.at)
		if err != nil || kept != m.kept {
			t.Errorf("moment %d: %d chains (%v), want %d", n, kept, err, m.kept)
		}
		if ek, err := verify.CheckEK(der, nil, r, m.at); err != nil || ek.Class != m.want {
			t.Errorf("moment %d: %+v (%v), want %s", n, ek, err, m.want)
		}
	}
	for a := range moments {
		for b := range moments {
			judge(a)
			judge(b)
		}
	}
	var wg sync.WaitGroup
	for n := range moments {
		wg.Go(func() {
			for range 10 {
				judge(n)
			}
		})
	}
	wg.Wait()
}

// Of the real EKs below built-in intermediates, none takes the longer way.
func TestKeptChainsOfRealTPMs(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	r := builtin(t)
	for _, name := range []string{"infineon-rsa", "infineon-p256", "stm-rsa", "stm-p256", "google-rsa", "google-p256"} {
		if kept, err := r.Kept(realEK(t, name), now); err != nil || kept != 1 {
			t.Errorf("%s: %d chains (%v)", name, kept, err)
		}
	}
}
