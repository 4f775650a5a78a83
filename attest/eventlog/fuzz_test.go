// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	"strings"
	"testing"

	goattest "github.com/google/go-attestation/attest"

	"funlab.casa/omen/attest"
)

// seed adds the real logs, and short ones that a fuzzer can bend faster.
func seed(f *testing.F) {
	for _, name := range logNames(f) {
		raw := readLog(f, name)
		f.Add(raw)
		if _, err := Parse(raw, "sha256"); err != nil {
			continue
		}
		l := takeApart(f, raw)
		for i := range l.events {
			if data := l.events[i].data; len(data) > 300 {
				l.events[i].data = data[:300]
			}
		}
		l.events = l.events[:min(len(l.events), 12)]
		f.Add(l.bytes())
	}
	tiny := edited{header: takeApart(f, readLog(f, rhel8)).header, events: []edit{
		{kind: noAction, data: []byte(startupLocality + "\x03")},
		measured(0, 8, "v"),
		measured(7, 0x80000001, variableData(globalVariable, "SecureBoot", "\x01")),
		measured(7, 0x80000001, variableData(imageSecurityDatabase, "dbx", "x")),
		measured(7, 4, separatorZeros),
		measured(4, 4, separatorZeros),
		measured(4, 0x80000003, string(imageLoad(node(4, 4, utf16le(`\a.efi`)), node(0x7f, 0xff, "")))),
	}}
	f.Add(tiny.bytes())
}

// FuzzParse looks for a panic, and for a log that another implementation replays
// to other values.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for bank, hash := range map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384} {
			l, err := Parse(raw, bank)
			if err != nil {
				continue
			}
			other, err := goattest.ParseEventLog(raw)
			if err != nil {
				continue
			}
			for pcr := range 17 {
				if pcr == 0 && looseLocality(raw) {
					continue
				}
				value, events := l.Replay(pcr)
				_, err := other.Verify([]goattest.PCR{{Index: pcr, Digest: value, DigestAlg: hash}})
				if err != nil && events > 0 {
					t.Fatalf("%s PCR %d: %x: %v", bank, pcr, value, err)
				}
			}
		}
	})
}

// looseLocality reports whether a log has the word without the NUL that ends it in
// the standard: the other implementation takes that for a locality, ours does not.
func looseLocality(raw []byte) bool {
	return bytes.Count(raw, []byte("StartupLocality")) != bytes.Count(raw, []byte(startupLocality))
}

// FuzzFacts looks for a panic and for facts that break their own rules.
func FuzzFacts(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		for _, bank := range []string{"sha256", "sha384"} {
			l, err := Parse(raw, bank)
			if err != nil {
				continue
			}
			p, err := l.Against(attest.Selection{Bank: bank, PCRs: allEight}, quoted(l, allEight))
			if err != nil {
				t.Fatal(err)
			}
			checkFacts(t, p)
		}
		if !bytes.Equal(raw, before) {
			t.Fatal("the log was written to")
		}
	})
}

func checkFacts(t *testing.T, p *Proven) {
	t.Helper()
	boot := p.SecureBoot()
	if (boot.State == SecureBootUnknown) != (boot.Reason != "") || boot.Reason != "" && len(boot.Keys) > 0 {
		t.Fatalf("%+v", boot)
	}
	if !isPrintable(boot.Reason) {
		t.Fatalf("reason %q", boot.Reason)
	}
	components, _ := p.Components(64)
	if len(components) > 64 {
		t.Fatal(len(components))
	}
	for _, c := range components {
		if len(c.Digest) != p.log.bank.size || len(c.Name) > MaxName || !isPrintable(c.Name) || strings.Contains(c.Name, ":") {
			t.Fatalf("%+v", c)
		}
	}
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
