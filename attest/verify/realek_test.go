// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
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

// The serial number as openssl prints it: 8E:71:…, so its DER has a zero before.
func TestIssuerSerialOfARealTPM(t *testing.T) {
	der := realEK(t, "nuvoton-rsa")
	ek, err := verify.CheckEK(der, nil, builtin(t), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
	wantRule(t, err, "")
	c, err := x509.ParseCertificate(der)
	check(t, err)
	serial, err := hex.DecodeString("008e71607435e271f985d6")
	check(t, err)
	if want := sha256.Sum256(append(c.RawIssuer, serial...)); ek.IssuerSerial != want {
		t.Errorf("%x, want %x", ek.IssuerSerial, want)
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
