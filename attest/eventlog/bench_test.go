// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"crypto/sha256"
	"runtime"
	"testing"

	"funlab.casa/omen/attest"
)

// BenchmarkLog is all that a login asks of a log of 45 kB and 116 events.
func BenchmarkLog(b *testing.B) {
	raw := readLog(b, ubuntu2404)
	selection := attest.Selection{Bank: "sha256", PCRs: allEight}
	values := quoted(mustParse(b, raw, "sha256"), allEight)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		l, err := Parse(raw, "sha256")
		if err != nil {
			b.Fatal(err)
		}
		p, err := l.Against(selection, values)
		if err != nil {
			b.Fatal(err)
		}
		if p.SecureBoot().State != SecureBootOff {
			b.Fatal("Secure Boot is not off")
		}
		if c, _ := p.Components(64); len(c) != 2 {
			b.Fatal(len(c))
		}
	}
}

// BenchmarkHashing is the floor: the hashes of BenchmarkLog and nothing else.
func BenchmarkHashing(b *testing.B) {
	raw := readLog(b, ubuntu2404)
	var contents [][]byte
	extends := 0
	for e := range mustParse(b, raw, "sha256").Events() {
		if e.Extends() && Explained(e.PCR) {
			extends++
		}
		if e.PCR == 7 && e.Index < 8 {
			contents = append(contents, e.Data)
		}
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	var both [64]byte
	for b.Loop() {
		for range extends {
			sum := sha256.Sum256(both[:])
			copy(both[:], sum[:])
		}
		for _, data := range contents {
			sha256.Sum256(data)     // is it measured
			sha256.Sum256(data[4:]) // its content
		}
	}
}

// TestAllocation keeps the memory of a log far below the log itself.
func TestAllocation(t *testing.T) {
	raw := readLog(t, ubuntu2404)
	selection := attest.Selection{Bank: "sha256", PCRs: allEight}
	values := quoted(mustParse(t, raw, "sha256"), allEight)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		l, err := Parse(raw, "sha256")
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Against(selection, values)
		if err != nil {
			t.Fatal(err)
		}
		p.SecureBoot()
		p.Components(64)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 20; each > uint64(len(raw))/4 {
		t.Errorf("%d bytes for a log of %d", each, len(raw))
	}
}
