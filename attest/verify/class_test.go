// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

type byClass = map[attest.EKClass][]byte

func TestCheckEKTellsTheClassOfTheRoot(t *testing.T) {
	c := newCast(t)
	der := c.liar.EKCertificate
	stranger := toPEM(newAuthority(t, elliptic.P256()).certificate)
	for _, class := range []attest.EKClass{attest.ClassHardware, attest.ClassFirmware, attest.ClassVirtual} {
		bundles := byClass{attest.ClassHardware: stranger}
		bundles[class] = append([]byte(c.vendor.PEM()), bundles[class]...)
		r, err := verify.ParseRoots(bundles, nil)
		check(t, err)
		ek, err := verify.CheckEK(der, nil, r, time.Now())
		wantRule(t, err, "")
		if ek.Class != class {
			t.Errorf("class %s, want %s", ek.Class, class)
		}
	}
}

// An issuer that several roots vouch for gives no more than the weakest of them.
func TestCheckEKTakesTheWeakestOfSeveralChains(t *testing.T) {
	c := newCast(t)
	strong, middle, weak := newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256())
	issuer := strong.below(t, nil)
	ends := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	short := weak.cross(t, issuer, func(x *x509.Certificate) { x.NotAfter = ends.Add(-time.Hour) })
	long := weak.cross(t, issuer, func(x *x509.Certificate) { x.NotAfter = ends })
	gone := weak.cross(t, issuer, func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) })
	certified := middle.cross(t, issuer, nil)
	der := issuer.certify(t, c.liar.EK.Public(), nil)
	all := byClass{
		attest.ClassHardware: toPEM(strong.certificate),
		attest.ClassFirmware: toPEM(middle.certificate),
		attest.ClassVirtual:  toPEM(weak.certificate),
	}
	for _, row := range []struct {
		name  string
		roots byClass
		sent  []*x509.Certificate
		want  attest.EKClass
	}{
		{"one", all, []*x509.Certificate{issuer.certificate}, attest.ClassHardware},
		{"two", all, []*x509.Certificate{issuer.certificate, certified}, attest.ClassFirmware},
		{"the weaker one is expired", all, []*x509.Certificate{issuer.certificate, gone}, attest.ClassHardware},
		{"the weaker root is not believed", byClass{attest.ClassHardware: all[attest.ClassHardware]}, []*x509.Certificate{issuer.certificate, long}, attest.ClassHardware},
		{"four", all, []*x509.Certificate{short, issuer.certificate, certified, long}, attest.ClassVirtual},
	} {
		t.Run(row.name, func(t *testing.T) {
			var sent [][]byte
			for _, x := range row.sent {
				sent = append(sent, x.Raw)
			}
			for _, configured := range []bool{false, true} {
				var intermediates []byte
				if configured {
					intermediates = toPEM(row.sent...)
				}
				r, err := verify.ParseRoots(row.roots, intermediates)
				check(t, err)
				ek, err := verify.CheckEK(der, sent, r, time.Now())
				wantRule(t, err, "")
				if ek.Class != row.want {
					t.Errorf("class %s, want %s", ek.Class, row.want)
				}
				if row.want == attest.ClassVirtual && !ek.NotAfter.Equal(ends) {
					t.Errorf("until %s, want the longer %s", ek.NotAfter, ends)
				}
			}
		})
	}
}

func TestCheckEKTellsWhenItsJudgementEnds(t *testing.T) {
	c, root := newCast(t), newAuthority(t, elliptic.P256())
	begins, ends := time.Now().Add(-time.Minute).Truncate(time.Second), time.Now().Add(time.Minute).Truncate(time.Second)
	issuer := root.below(t, func(x *x509.Certificate) { x.NotBefore, x.NotAfter = begins, ends })
	der := issuer.certify(t, c.liar.EK.Public(), nil)
	r, err := verify.ParseRoots(hardware(toPEM(root.certificate)), toPEM(issuer.certificate))
	check(t, err)
	ek, err := verify.CheckEK(der, nil, r, time.Now())
	wantRule(t, err, "")
	if !ek.NotBefore.Equal(begins) || !ek.NotAfter.Equal(ends) {
		t.Errorf("from %s to %s, want from %s to %s", ek.NotBefore, ek.NotAfter, begins, ends)
	}
	_, err = verify.CheckEK(der, nil, r, ends.Add(time.Second))
	wantRule(t, err, attest.RuleEKCertificate)
}

func TestCheckEKIssuerSerial(t *testing.T) {
	c, ca := newCast(t), newAuthority(t, elliptic.P256())
	r := roots(t, string(toPEM(ca.certificate)))
	good := ca.certify(t, c.liar.EK.Public(), nil)
	for _, octets := range [][]byte{{1}, {0x80, 1}, {0, 0x80, 1}, {0}} {
		ek, err := verify.CheckEK(ca.withSerial(t, good, octets...), nil, r, time.Now())
		wantRule(t, err, "")
		if want := sha256.Sum256(append(bytes.Clone(ca.certificate.RawSubjectPublicKeyInfo), octets...)); ek.IssuerSerial != want {
			t.Errorf("serial %x: %x, want %x", octets, ek.IssuerSerial, want)
		}
	}
}

// SHA-1 signatures count for nothing below a root; a root's own is not looked at.
func TestCheckEKWithSHA1(t *testing.T) {
	c, root := newCast(t), newAuthority(t, elliptic.P256())
	old := root.below(t, func(x *x509.Certificate) { x.SignatureAlgorithm = x509.ECDSAWithSHA1 })
	der := old.certify(t, c.liar.EK.Public(), nil)
	for name, row := range map[string]struct {
		roots, intermediates []byte
		want                 attest.Rule
	}{
		"as an intermediate": {toPEM(root.certificate), toPEM(old.certificate), attest.RuleEKCertificate},
		"pinned as a root":   {toPEM(old.certificate), nil, ""},
	} {
		r, err := verify.ParseRoots(hardware(row.roots), row.intermediates)
		check(t, err)
		t.Run(name, func(t *testing.T) {
			_, err := verify.CheckEK(der, nil, r, time.Now())
			wantRule(t, err, row.want)
		})
	}
	leaf := ca1(t, root, c.liar.EK.Public())
	_, err := verify.CheckEK(leaf, nil, roots(t, string(toPEM(root.certificate))), time.Now())
	wantRule(t, err, attest.RuleEKCertificate)
}

// ca1 is an EK certificate with a SHA-1 signature.
func ca1(t *testing.T, a *authority, public any) []byte {
	t.Helper()
	return a.certify(t, public, func(x *x509.Certificate) { x.SignatureAlgorithm = x509.ECDSAWithSHA1 })
}

// P-521 issuers cost much to check: an operator may configure them, a stranger
// may not send them.
func TestCheckEKWithP521(t *testing.T) {
	c := newCast(t)
	root := newAuthority(t, elliptic.P521())
	middle := newAuthority(t, elliptic.P521())
	middle.certificate = root.cross(t, middle, nil)
	der := middle.certify(t, c.liar.EK.Public(), nil)
	r, err := verify.ParseRoots(hardware(toPEM(root.certificate)), toPEM(middle.certificate))
	check(t, err)
	_, err = verify.CheckEK(der, nil, r, time.Now())
	wantRule(t, err, "")
	_, err = verify.CheckEK(der, [][]byte{middle.certificate.Raw}, r, time.Now()) // known: not parsed again
	wantRule(t, err, "")
	_, err = verify.CheckEK(der, [][]byte{middle.certificate.Raw}, roots(t, string(toPEM(root.certificate))), time.Now())
	wantRule(t, err, attest.RuleEKCertificate)
}

func TestParseRootsByClass(t *testing.T) {
	a, b := newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256())
	one, two := toPEM(a.certificate), toPEM(b.certificate)
	again := a.vouch(t, a.template(t), a.key.Public()) // the same key under another name
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	weak := toPEM(b.vouch(t, b.template(t), small.Public()))
	for _, row := range []struct {
		name          string
		roots         byClass
		intermediates []byte
		good          bool
	}{
		{"none", nil, nil, true},
		{"three classes", byClass{attest.ClassHardware: one, attest.ClassFirmware: two, attest.ClassVirtual: nil}, nil, true},
		{"twice in one class", byClass{attest.ClassHardware: toPEM(a.certificate, a.certificate)}, nil, true},
		{"root that is an intermediate too", byClass{attest.ClassHardware: one}, one, true},
		{"in two classes", byClass{attest.ClassHardware: one, attest.ClassVirtual: one}, nil, false},
		{"the same key in two classes", byClass{attest.ClassHardware: one, attest.ClassFirmware: toPEM(again)}, nil, false},
		{"class uncertified", byClass{attest.ClassUncertified: one}, nil, false},
		{"class unknown", byClass{"Hardware": nil}, nil, false},
		{"weak root", byClass{attest.ClassHardware: weak}, nil, false},
		{"weak intermediate", byClass{attest.ClassHardware: one}, weak, false},
	} {
		r, err := verify.ParseRoots(row.roots, row.intermediates)
		if (err == nil) != row.good || (r == nil) == row.good {
			t.Errorf("%s: %v, %v", row.name, r, err)
		}
	}
}

func TestCheckEKPublic(t *testing.T) {
	c := newCast(t)
	key := func(public any) []byte {
		der, err := x509.MarshalPKIXPublicKey(public)
		check(t, err)
		return der
	}
	ec := func(curve elliptic.Curve) []byte {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		check(t, err)
		return key(k.Public())
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	good, p256 := key(c.liar.EK.Public()), ec(elliptic.P256())
	offCurve := append([]byte{}, p256...)
	offCurve[len(offCurve)-1] ^= 1
	for _, row := range []struct {
		name string
		spki []byte
		want attest.Rule
	}{
		{"RSA-2048", good, ""},
		{"P-256", p256, ""},
		{"P-384", ec(elliptic.P384()), ""},
		{"P-521", ec(elliptic.P521()), attest.RuleEKWeak},
		{"RSA-1024", key(short.Public()), attest.RuleEKWeak},
		{"exponent 3", key(&rsa.PublicKey{N: c.liar.EK.N, E: 3}), attest.RuleEKWeak},
		{"ROCA", key(&rsa.PublicKey{N: rocaModulus(t), E: 65537}), attest.RuleEKWeak},
		{"Ed25519", key(edwards), attest.RuleEKWeak},
		{"absent", nil, attest.RuleSyntax},
		{"a certificate", c.liar.EKCertificate, attest.RuleSyntax},
		{"trailing byte", append(append([]byte{}, good...), 0), attest.RuleSyntax},
		{"another encoding", oneMoreField(t, good), attest.RuleSyntax},
		{"off the curve", offCurve, attest.RuleSyntax},
		{"too large", make([]byte, 1<<10+1), attest.RuleSize},
	} {
		t.Run(row.name, func(t *testing.T) {
			ek, err := verify.CheckEKPublic(row.spki)
			wantRule(t, err, row.want)
			if (ek == nil) != (row.want != "") {
				t.Fatalf("EK %v with %v", ek, err)
			}
			if ek == nil {
				return
			}
			if id, err := attest.NewTPMID(ek.Key); err != nil || id != ek.TPMID || ek.Class != attest.ClassUncertified || ek.Public == nil {
				t.Errorf("%+v, TPM ID %s (%v)", ek, id, err)
			}
		})
	}
}

// oneMoreField is a SubjectPublicKeyInfo that encoding/asn1 reads as the same
// key: it passes over what stands after the last field it knows.
func oneMoreField(t *testing.T, spki []byte) []byte {
	t.Helper()
	var fields []asn1.RawValue
	_, err := asn1.Unmarshal(spki, &fields)
	check(t, err)
	der, err := asn1.Marshal(append(fields, asn1.NullRawValue))
	check(t, err)
	if _, err := x509.ParsePKIXPublicKey(der); err != nil {
		t.Fatalf("shows nothing: %v", err)
	}
	return der
}

// FuzzEKPublic: what is accepted is the one encoding of its key.
func FuzzEKPublic(f *testing.F) {
	c := newCast(f)
	for _, k := range []any{c.liar.EK.Public(), c.liar.AK.Key()} {
		spki, err := x509.MarshalPKIXPublicKey(k)
		check(f, err)
		f.Add(spki)
	}
	f.Fuzz(func(t *testing.T, spki []byte) {
		ek, err := verify.CheckEKPublic(spki)
		onlyRefusals(t, err)
		if err != nil {
			return
		}
		if again, err := x509.MarshalPKIXPublicKey(ek.Key); err != nil || string(again) != string(spki) {
			t.Fatalf("%x became %x (%v)", spki, again, err)
		}
	})
}
