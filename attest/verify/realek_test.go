// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/vendors"
	"funlab.casa/omen/attest/verify"
)

// builtin is what a mount with nothing but the built-in bundle believes.
func builtin(t testing.TB) *verify.Roots {
	t.Helper()
	bundles := byClass{}
	for _, class := range []attest.EKClass{attest.ClassHardware, attest.ClassFirmware, attest.ClassVirtual} {
		bundles[class] = vendors.Roots(class)
	}
	r, err := verify.ParseRoots(bundles, vendors.Intermediates())
	check(t, err)
	return r
}

func realEK(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "ek", name+".pem"))
	check(t, err)
	block, rest := pem.Decode(text)
	if block == nil || len(rest) != 0 {
		t.Fatalf("%s is not one PEM block", name)
	}
	return block.Bytes
}

// Certificates of real TPMs, at a time when all were valid.
func TestCheckEKOfRealTPMs(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name   string
		want   attest.Rule
		detail string // of the refusal
		class  attest.EKClass
		tpm    string
	}{
		{"nuvoton-rsa", "", "", attest.ClassHardware, "NTC NPCT75x 00070002"},
		{"google-rsa", "", "", attest.ClassVirtual, "GOOG vTPM 20160511"},
		{"google-p256", "", "", attest.ClassVirtual, "GOOG vTPM 20160511"},
		// An attestation key with the extended key usage of an endorsement key.
		{"google-ak-rsa", attest.RuleEKCertificate, "key usage", "", ""},
		{"google-ak-p256", attest.RuleEKCertificate, "key usage", "", ""},
		{"google-rsa-without-usage", attest.RuleEKCertificate, "extended key usage", "", ""},
		// stm-rsa has the filling of its NV index.
		{"infineon-rsa", "", "", attest.ClassHardware, "IFX SLB 9670 TPM2.0 073f"},
		{"infineon-p256", "", "", attest.ClassHardware, "IFX SLB 9670 TPM2.0 073f"},
		{"stm-rsa", "", "", attest.ClassHardware, "STM ST33HTPHAHB4 00490004"},
		{"stm-p256", "", "", attest.ClassHardware, "STM ST33HTPHAHB4 00490004"},
	} {
		t.Run(row.name, func(t *testing.T) {
			der := realEK(t, row.name)
			ek, err := verify.CheckEK(der, nil, builtin(t), now)
			wantRule(t, err, row.want)
			if row.want != "" {
				if !strings.Contains(err.Error(), row.detail) {
					t.Errorf("%v, want %s", err, row.detail)
				}
				return
			}
			if got := ek.Manufacturer + " " + ek.Model + " " + ek.Firmware; got != row.tpm || ek.Class != row.class {
				t.Errorf("%s %s, want %s %s", ek.Class, got, row.class, row.tpm)
			}
			_, err = verify.CheckEK(der, nil, builtin(t), now.AddDate(100, 0, 0))
			wantRule(t, err, attest.RuleEKCertificate)
		})
	}
}

// Every certificate file is one that a test names.
func TestRealTPMsAreAllTested(t *testing.T) {
	files, err := filepath.Glob("testdata/ek/*.pem")
	check(t, err)
	if len(files) != 10 {
		t.Errorf("%d files", len(files))
	}
}

// What the page computes with openssl is what the plugin goes by, for an RSA key
// and one with a zero before its serial number (8E:71:…) as well.
func TestIssuerSerialIsWhatThePageComputes(t *testing.T) {
	page, err := os.ReadFile("../../docs/ek-trust.md")
	check(t, err)
	_, lines, found := strings.Cut(string(page), "```sh\nserial=")
	lines, _, ended := strings.Cut(lines, "```")
	if !found || !ended {
		t.Fatal("no such lines in the page")
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"nuvoton-rsa", "infineon-p256", "infineon-rsa", "stm-p256", "google-rsa"} {
		der := realEK(t, name)
		ek, err := verify.CheckEK(der, nil, builtin(t), now)
		wantRule(t, err, "")
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "ek.pem"), toPEM(parsed(t, der)), 0o600))
		check(t, os.WriteFile(filepath.Join(dir, "issuer.pem"), toPEM(issuerOf(t, parsed(t, der))), 0o600))
		command := exec.Command("sh", "-euc", "serial="+lines)
		command.Dir = dir
		out, err := command.CombinedOutput()
		check(t, err)
		if got, want := strings.TrimSpace(string(out)), hex.EncodeToString(ek.IssuerSerial[:]); !strings.Contains(got, want) {
			t.Errorf("%s: openssl says %q, want %s", name, got, want)
		}
	}
}

func parsed(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return c
}

// issuerOf is the built-in certificate that signed an EK certificate.
func issuerOf(t testing.TB, ek *x509.Certificate) *x509.Certificate {
	t.Helper()
	bundle := vendors.Intermediates()
	for _, class := range []attest.EKClass{attest.ClassHardware, attest.ClassFirmware, attest.ClassVirtual} {
		bundle = append(bundle, vendors.Roots(class)...)
	}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		c := parsed(t, block.Bytes)
		if bytes.Equal(c.RawSubject, ek.RawIssuer) && ek.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	t.Fatalf("nobody signed %s", ek.Issuer)
	return nil
}

// A CA that takes another's name, below a believed root, does not take the place of
// the TPMs that the other certified.
func TestIssuerSerialIsOfTheIssuersKey(t *testing.T) {
	c, chips, emulators := newCast(t), newAuthority(t, elliptic.P256()), newAuthority(t, elliptic.P256())
	r, err := verify.ParseRoots(byClass{
		attest.ClassHardware: toPEM(chips.certificate), attest.ClassVirtual: toPEM(emulators.certificate),
	}, nil)
	check(t, err)
	impostor := emulators.below(t, func(x *x509.Certificate) { x.Subject = chips.certificate.Subject })
	honest := chips.withSerial(t, chips.certify(t, c.liar.EK.Public(), nil), 1, 2)
	forged := impostor.withSerial(t, impostor.certify(t, c.liar.EK.Public(), nil), 1, 2)
	one, err := verify.CheckEK(honest, nil, r, time.Now())
	wantRule(t, err, "")
	two, err := verify.CheckEK(forged, [][]byte{impostor.certificate.Raw}, r, time.Now())
	wantRule(t, err, "")
	if !bytes.Equal(parsed(t, honest).RawIssuer, parsed(t, forged).RawIssuer) {
		t.Fatal("the impostor has another name")
	}
	if one.IssuerSerial == two.IssuerSerial {
		t.Error("both certificates have one place")
	}
	if len(one.Sent) != 0 || len(two.Sent) != 1 || two.Sent[0] != sha256.Sum256(impostor.certificate.Raw) {
		t.Errorf("needed: %x and %x", one.Sent, two.Sent)
	}
}

func BenchmarkCheckEK(b *testing.B) {
	der, r, now := realEK(b, "google-rsa"), builtin(b), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify.CheckEK(der, nil, r, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRoots(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		builtin(b)
	}
}
