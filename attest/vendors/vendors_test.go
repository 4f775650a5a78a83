// SPDX-License-Identifier: Apache-2.0

package vendors_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/vendors"
	"funlab.casa/omen/attest/verify"
)

// owners are the words by which a vendor's subject is known.
var owners = map[string]string{
	"AMD": "O=Advanced Micro Devices", "Google": "O=Google LLC", "Infineon": "O=Infineon Technologies AG",
	"Intel": "O=Intel Corporation", "NationZ": "O=Nationz Technologies Inc", "Nuvoton": "O=Nuvoton Technology Corporation",
	"STMicroelectronics": "O=STMicroelectronics NV",
}

var classes = []attest.EKClass{attest.ClassHardware, attest.ClassFirmware, attest.ClassVirtual}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB) []vendors.Certificate {
	t.Helper()
	all, err := vendors.List()
	check(t, err)
	return all
}

func parse(t testing.TB, c vendors.Certificate) *x509.Certificate {
	t.Helper()
	x, err := x509.ParseCertificate(c.DER)
	check(t, err)
	return x
}

// The words before a certificate are true of it.
func TestWordsAreTrue(t *testing.T) {
	taken, compared := sources(t, "source"), sources(t, "compared")
	for _, c := range list(t) {
		x := parse(t, c)
		if got := x.Subject.String(); got != c.Subject || !strings.Contains(got, owners[c.Vendor]) || owners[c.Vendor] == "" {
			t.Errorf("%s: subject of %s is %s", c.Subject, c.Vendor, got)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(c.DER)); got != c.SHA256 {
			t.Errorf("%s: SHA-256 %s", c.Subject, got)
		}
		if got := x.NotAfter.UTC().Truncate(24 * time.Hour); !got.Equal(c.NotAfter) {
			t.Errorf("%s: not after %s", c.Subject, got)
		}
		if _, known := taken[c.Source]; !known {
			t.Errorf("%s: source %q is not in SOURCES", c.Subject, c.Source)
		}
		for other := range strings.SplitSeq(c.AlsoIn, ", ") {
			if _, known := compared[other]; !known && other != "" {
				t.Errorf("%s: %q is not in SOURCES", c.Subject, other)
			}
		}
	}
}

// Each certificate is a CA's with a sound key, and what is odd about it is noted.
func TestCertificatesAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range list(t) {
		x := parse(t, c)
		if seen[c.SHA256] {
			t.Errorf("%s is there twice", c.Subject)
		}
		seen[c.SHA256] = true
		if !x.BasicConstraintsValid || !x.IsCA || x.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("%s is not a CA", c.Subject)
		}
		switch k := x.PublicKey.(type) {
		case *rsa.PublicKey:
			if k.N.BitLen() < 2048 || k.E != 65537 {
				t.Errorf("%s: RSA of %d bits, exponent %d", c.Subject, k.N.BitLen(), k.E)
			}
		case *ecdsa.PublicKey:
			if k.Params().BitSize < 256 {
				t.Errorf("%s: curve %s", c.Subject, k.Params().Name)
			}
		default:
			t.Errorf("%s: key %T", c.Subject, k)
		}
		itsOwn := x.CheckSignatureFrom(x) == nil // false for SHA-1
		if c.Use == "root" && !itsOwn && c.Note == "" {
			t.Errorf("%s: no note says why a root has no sound signature of its own", c.Subject)
		}
		if x.NotAfter.Before(asOf(t)) && !strings.Contains(c.Note, "expired") {
			t.Errorf("%s: no note says that it is expired", c.Subject)
		}
		if strings.Contains(strings.ToLower(c.Subject), "swtpm") {
			t.Errorf("%s issues for software TPMs", c.Subject)
		}
	}
}

// Every root stands in the bundle of its class and in no other.
func TestRootsByClass(t *testing.T) {
	for _, class := range classes {
		var want []string
		for _, c := range list(t) {
			if c.Use == "root" && c.Class == class {
				want = append(want, c.SHA256)
			}
		}
		if got := fingerprints(vendors.Roots(class)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", class, got, want)
		}
	}
	if got := vendors.Roots(attest.ClassUncertified); got != nil {
		t.Errorf("class uncertified has roots: %s", got)
	}
}

func fingerprints(bundle []byte) (list []string) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		list = append(list, fmt.Sprintf("%x", sha256.Sum256(block.Bytes)))
	}
	return list
}

// Every intermediate certificate leads to a root of the class it says.
func TestIntermediatesChain(t *testing.T) {
	want := fingerprints(vendors.Intermediates())
	var got []string
	for _, c := range list(t) {
		if c.Use != "intermediate" {
			continue
		}
		got = append(got, c.SHA256)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(vendors.Roots(c.Class))
		_, err := parse(t, c).Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: asOf(t), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err != nil {
			t.Errorf("%s: %v", c.Subject, err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The whole bundle can be configured, after another bundle too.
func TestBundleIsConfigurable(t *testing.T) {
	bundles := map[attest.EKClass][]byte{}
	for _, class := range classes {
		first := strings.TrimSpace(string(vendors.Roots(class)))
		bundles[class] = append([]byte(first), vendors.Roots(class)...)
	}
	_, err := verify.ParseRoots(bundles, vendors.Intermediates())
	check(t, err)
}

// What the sources hold is either built in or left out for a reason.
func TestNothingOfTheSourcesIsForgotten(t *testing.T) {
	builtin, count := map[string]bool{}, map[string]int{}
	for _, c := range list(t) {
		builtin[c.SHA256] = true
		count[c.Source]++
	}
	for _, l := range leftOut(t) {
		if builtin[l.sha256] {
			t.Errorf("%s is built in", l.subject)
		}
		if sum, err := hex.DecodeString(l.sha256); err != nil || len(sum) != sha256.Size {
			t.Errorf("%s: SHA-256 %q", l.subject, l.sha256)
		}
		if _, err := time.Parse(time.DateOnly, l.notAfter); err != nil || l.subject == "" || l.why == "" {
			t.Errorf("incomplete: %+v", l)
		}
		count[l.source]++
	}
	for source, holds := range sources(t, "source") {
		if fmt.Sprint(count[source]) != holds {
			t.Errorf("%s: %d of %s certificates", source, count[source], holds)
		}
		delete(count, source)
	}
	if len(count) != 0 {
		t.Errorf("not in SOURCES: %v", count)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	return string(text)
}

var (
	sourceEntry = regexp.MustCompile(`(?m)^(source|compared) +(\S+)\n((?:  .*\n)+)`)
	holdsLine   = regexp.MustCompile(`(?m)^  holds +(\d+) certificates$`)
	dateLine    = regexp.MustCompile(`As of (\d{4}-\d\d-\d\d)\.`)
)

// sources are the entries of one kind in SOURCES and how many certificates each
// holds. Each tells its origin and licence.
func sources(t testing.TB, kind string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, m := range sourceEntry.FindAllStringSubmatch(read(t, "SOURCES"), -1) {
		if m[1] != kind {
			continue
		}
		if !strings.Contains(m[3], "  origin ") || !strings.Contains(m[3], "  licence ") {
			t.Errorf("SOURCES: %s has no origin or licence", m[2])
		}
		found[m[2]] = ""
		if holds := holdsLine.FindStringSubmatch(m[3]); holds != nil {
			found[m[2]] = holds[1]
		}
	}
	return found
}

// asOf is the day for which the bundle was put together.
func asOf(t testing.TB) time.Time {
	t.Helper()
	m := dateLine.FindStringSubmatch(read(t, "SOURCES"))
	if m == nil {
		t.Fatal("SOURCES has no day")
	}
	day, err := time.Parse(time.DateOnly, m[1])
	check(t, err)
	return day
}

type left struct{ sha256, subject, notAfter, source, why string }

// leftOut reads LEFTOUT.
func leftOut(t testing.TB) (all []left) {
	t.Helper()
	for entry := range strings.SplitSeq(strings.TrimSpace(read(t, "LEFTOUT")), "\n\n") {
		if strings.HasPrefix(entry, "#") {
			continue
		}
		lines := strings.Split(entry, "\n")
		l := left{sha256: lines[0]}
		for _, line := range lines[1:] {
			for word, field := range map[string]*string{"subject": &l.subject, "not after": &l.notAfter, "source": &l.source, "why": &l.why} {
				if value, found := strings.CutPrefix(line, "  "+word+" "); found {
					*field = value
				}
			}
		}
		all = append(all, l)
	}
	return all
}
