// SPDX-License-Identifier: Apache-2.0

package vendors_test

import (
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/vendors"
	"funlab.casa/omen/attest/verify"
)

func builtIn(t testing.TB) *verify.Roots {
	t.Helper()
	bundles := map[attest.EKClass][]byte{}
	for _, class := range classes {
		bundles[class] = vendors.Roots(class)
	}
	r, err := verify.ParseRoots(bundles, vendors.Intermediates())
	check(t, err)
	return r
}

// The bundle is enough for certificates of real TPMs. More of them are in the
// tests of package verify.
func TestRealTPMs(t *testing.T) {
	want := map[string]string{
		"intel-rsa":    "firmware INTC SPT 00020000",
		"nuvoton-rsa":  "hardware NTC NPCT75x 00070002",
		"nuvoton-p256": "hardware NTC NPCT75x 00070002",
	}
	files, err := filepath.Glob("testdata/*.pem")
	check(t, err)
	if len(files) != len(want) {
		t.Errorf("%d files, want %d", len(files), len(want))
	}
	sources := read(t, "testdata/SOURCES")
	for name, tpm := range want {
		block, _ := pem.Decode([]byte(read(t, "testdata/"+name+".pem")))
		if block == nil {
			t.Fatalf("%s is not PEM", name)
		}
		ek, err := verify.CheckEK(block.Bytes, nil, builtIn(t), asOf(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.Join([]string{string(ek.Class), ek.Manufacturer, ek.Model, ek.Firmware}, " "); got != tpm {
			t.Errorf("%s: %s, want %s", name, got, tpm)
		}
		if !strings.Contains(sources, name+".pem") {
			t.Errorf("%s is not in SOURCES", name)
		}
	}
}

func BenchmarkParseRoots(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		builtIn(b)
	}
}
