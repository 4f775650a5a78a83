// SPDX-License-Identifier: Apache-2.0

package vendors_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
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
	"Intel": "CN=www.intel.com", "Microsoft": "O=Microsoft Corporation", "NationZ": "O=Nationz Technologies Inc",
	"NSING": "O=NSING Technologies Pte. Ltd.", "Nuvoton": "O=Nuvoton Technology Corporation",
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
	taken := sources(t)
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
		for _, source := range holders(c.Source, c.AlsoIn) {
			if _, known := taken[source]; !known {
				t.Errorf("%s: source %q is not in SOURCES", c.Subject, source)
			}
		}
		if c.Path == "" {
			t.Errorf("%s: no path", c.Subject)
		}
	}
}

// Each certificate is a CA's with a sound key, and what is odd about it is noted.
func TestCertificatesAreSound(t *testing.T) {
	seen, day := map[string]bool{}, asOf(t)
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
		if x.NotAfter.Before(day) && !strings.Contains(c.Note, "expired") {
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

// Every intermediate certificate leads to a root of the class it says, and to no
// root of another.
func TestIntermediatesChain(t *testing.T) {
	want, day := fingerprints(vendors.Intermediates()), asOf(t)
	var got []string
	intermediates, roots := pool(vendors.Intermediates()), map[attest.EKClass]*x509.CertPool{}
	for _, class := range classes {
		roots[class] = pool(vendors.Roots(class))
	}
	for _, c := range list(t) {
		if c.Use != "intermediate" {
			continue
		}
		got = append(got, c.SHA256)
		for _, class := range classes {
			_, err := parse(t, c).Verify(x509.VerifyOptions{
				Roots: roots[class], Intermediates: intermediates, CurrentTime: day, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			if (err == nil) != (class == c.Class) {
				t.Errorf("%s, class %s: %v", c.Subject, class, err)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func pool(bundle []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(bundle)
	return p
}

// A root that another CA signed stands for itself alone: that CA is no root, or
// it is one and did sign it, but no chain is found since it is named otherwise.
func TestPinnedRoots(t *testing.T) {
	pinned, all := map[string]int{}, list(t)
	for _, c := range all {
		x := parse(t, c)
		if c.Use != "root" || bytes.Equal(x.RawIssuer, x.RawSubject) {
			continue
		}
		pinned[x.Issuer.CommonName]++
		for _, other := range all {
			issuer := parse(t, other)
			if bytes.Equal(issuer.RawSubject, x.RawIssuer) {
				t.Errorf("%s is below %s", c.Subject, other.Subject)
			}
			if issuer.Subject.String() == x.Issuer.String() && x.CheckSignatureFrom(issuer) != nil {
				t.Errorf("%s is not signed by %s", c.Subject, other.Subject)
			}
		}
	}
	want := map[string]int{
		"AMD Root CA R4": 1, "STM TPM ECC Root CA 01": 4,
		"GlobalSign Trusted Platform Module Root CA": 1, "GlobalSign Trusted Platform Module ECC Root CA": 1,
	}
	if !maps.Equal(pinned, want) {
		t.Errorf("signed by %v, want %v", pinned, want)
	}
}

// How many certificates there are of each vendor.
func TestCounts(t *testing.T) {
	got := map[string][2]int{}
	for _, c := range list(t) {
		n := got[c.Vendor]
		if c.Use == "root" {
			n[0]++
		} else {
			n[1]++
		}
		got[c.Vendor] = n
	}
	want := map[string][2]int{ // roots, intermediate certificates
		"AMD": {5, 17}, "Google": {1, 2}, "Infineon": {4, 92}, "Intel": {2, 3}, "Microsoft": {1, 1},
		"NationZ": {1, 1}, "NSING": {2, 10}, "Nuvoton": {16, 4}, "STMicroelectronics": {8, 17},
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
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
		for _, source := range holders(c.Source, c.AlsoIn) {
			count[source]++
		}
	}
	for _, l := range leftOut(t) {
		if builtin[l.sha256] {
			t.Errorf("%s is built in", l.subject)
		}
		builtin[l.sha256] = true
		if sum, err := hex.DecodeString(l.sha256); err != nil || len(sum) != sha256.Size {
			t.Errorf("%s: SHA-256 %q", l.subject, l.sha256)
		}
		day, err := time.Parse(time.DateOnly, l.notAfter)
		if err != nil || l.subject == "" || l.path == "" || l.why == "" {
			t.Errorf("incomplete: %+v", l)
		}
		if day.Before(asOf(t)) != strings.Contains(l.why, "expired") {
			t.Errorf("%s: not after %s, and left out because %s", l.subject, l.notAfter, l.why)
		}
		for _, source := range holders(l.source, l.alsoIn) {
			count[source]++
		}
	}
	if want := sources(t); !maps.Equal(count, want) {
		t.Errorf("%v, want %v", count, want)
	}
}

// holders are the sources of a certificate.
func holders(source, alsoIn string) []string {
	if alsoIn == "" {
		return []string{source}
	}
	return append(strings.Split(alsoIn, ", "), source)
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	return string(text)
}

var (
	sourceEntry = regexp.MustCompile(`(?m)^source +(\S+)\n((?:  .*\n)+)`)
	holdsLine   = regexp.MustCompile(`(?m)^  holds +(\d+) certificates`)
	dateLine    = regexp.MustCompile(`As of (\d{4}-\d\d-\d\d)\.`)
)

// sources are the entries in SOURCES and how many certificates each holds. Each
// tells its origin, version and licence.
func sources(t testing.TB) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, m := range sourceEntry.FindAllStringSubmatch(read(t, "SOURCES"), -1) {
		for _, line := range []string{"  origin ", "  taken ", "  licence "} {
			if !strings.Contains(m[2], line) {
				t.Errorf("SOURCES: %s has no line%s", m[1], line)
			}
		}
		holds := holdsLine.FindStringSubmatch(m[2])
		if holds == nil {
			t.Fatalf("SOURCES does not say what %s holds", m[1])
		}
		n, err := strconv.Atoi(holds[1])
		check(t, err)
		found[m[1]] = n
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

type left struct{ sha256, subject, notAfter, source, path, alsoIn, why string }

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
			for word, field := range map[string]*string{
				"subject": &l.subject, "not after": &l.notAfter, "source": &l.source,
				"path": &l.path, "also in": &l.alsoIn, "why": &l.why,
			} {
				if value, found := strings.CutPrefix(line, "  "+word+" "); found {
					*field = value
				}
			}
		}
		all = append(all, l)
	}
	return all
}
