// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"testing"

	goattest "github.com/google/go-attestation/attest"

	"funlab.casa/omen/attest"
)

// agrees compares the replay of a log with another implementation's, in every
// PCR that has events.
func agrees(t *testing.T, raw []byte, bank string) {
	t.Helper()
	l := mustParse(t, raw, bank)
	other, err := goattest.ParseEventLog(raw)
	if err != nil {
		t.Fatalf("go-attestation: %v", err)
	}
	algorithm, compared := crypto.SHA256, 0
	if bank == "sha384" {
		algorithm = crypto.SHA384
	}
	for pcr := range 17 {
		value, events := l.Replay(pcr)
		replayed, err := other.Verify([]goattest.PCR{{Index: pcr, Digest: value, DigestAlg: algorithm}})
		if err != nil || len(replayed) != events {
			t.Errorf("PCR %d: %d events here, %d there, %v", pcr, events, len(replayed), err)
		}
		compared += events
	}
	if compared == 0 {
		t.Error("nothing compared")
	}
}

func TestReplayAgreesWithGoAttestation(t *testing.T) {
	compared := 0
	for _, name := range logNames(t) {
		raw := readLog(t, name)
		for _, bank := range []string{"sha256", "sha384"} {
			if _, err := Parse(raw, bank); err != nil {
				continue // TestRealLogsParse says which
			}
			compared++
			t.Run(name+"/"+bank, func(t *testing.T) { agrees(t, raw, bank) })
		}
	}
	if compared != 23 {
		t.Errorf("%d replays compared", compared)
	}
}

// PCR 0 of this machine began at locality 3.
func TestStartupLocality(t *testing.T) {
	l := mustParse(t, readLog(t, "glinux-alex"), "sha256")
	if l.locality != 3 {
		t.Fatalf("locality %d", l.locality)
	}
	e := takeApart(t, readLog(t, "glinux-alex"))
	first, _ := l.Replay(0)
	e.events[0].data = []byte(startupLocality + "\x00")
	second, _ := mustParse(t, e.bytes(), "sha256").Replay(0)
	e.events[0].data = []byte(startupLocality + "\x04")
	third, _ := mustParse(t, e.bytes(), "sha256").Replay(0)
	if bytes.Equal(first, second) || bytes.Equal(first, third) || bytes.Equal(second, third) {
		t.Fatal("locality does not change PCR 0")
	}
}

func TestResetValues(t *testing.T) {
	l := mustParse(t, readLog(t, rhel8), "sha384")
	for pcr, want := range map[int]byte{10: 0, 16: 0, 17: 0xff, 22: 0xff, 23: 0} {
		value, events := l.Replay(pcr)
		if events != 0 || !bytes.Equal(value, bytes.Repeat([]byte{want}, 48)) {
			t.Errorf("PCR %d: %x after %d events", pcr, value, events)
		}
	}
	for _, pcr := range []int{-1, 24, 1 << 20} {
		if value, events := l.Replay(pcr); value != nil || events != 0 {
			t.Errorf("PCR %d: %x", pcr, value)
		}
	}
}

// Known from a TPM that was extended with this log.
func TestKnownValue(t *testing.T) {
	value, events := mustParse(t, readLog(t, ubuntu2404), "sha256").Replay(0)
	if got := hex.EncodeToString(value); got[:8] != "50597a27" || events != 3 {
		t.Fatalf("PCR 0 is %s after %d events", got, events)
	}
}

func TestAgainst(t *testing.T) {
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14}
	for _, tt := range []struct {
		name  string
		bend  func(l *edited, values [][]byte)
		words string // none: proven
	}{
		{"as it is", func(*edited, [][]byte) {}, ""},
		{"another value in PCR 5", func(_ *edited, v [][]byte) { v[5][0]++ }, ""},
		{"another value in PCR 8", func(_ *edited, v [][]byte) { v[8][0]++ }, ""},
		{"another value in PCR 0", func(_ *edited, v [][]byte) { v[0][0]++ }, "PCR 0"},
		{"another value in PCR 6", func(_ *edited, v [][]byte) { v[6][31]++ }, "PCR 6"},
		{"value without events", func(l *edited, _ [][]byte) { l.without(4) }, "PCR 4: 0 events"},
		{"PCR 7 stripped", func(l *edited, _ [][]byte) { l.without(7) }, "PCR 7: 0 events"},
		{"first event gone", func(l *edited, _ [][]byte) { l.events = l.events[1:] }, "PCR 0"},
		{"event said to be no action", func(l *edited, _ [][]byte) { l.events[3].kind = noAction }, "PCR 7"},
		{"two events swapped", func(l *edited, _ [][]byte) {
			l.events[2], l.events[3] = l.events[3], l.events[2]
		}, "PCR 7"},
		{"moved to another PCR", func(l *edited, _ [][]byte) { l.events[2].pcr = 6 }, "PCR 6"},
		{"digest rewritten with its data", func(l *edited, _ [][]byte) {
			l.events[2].remeasure([]byte(variableData(globalVariable, "SecureBoot", "\x01") + "x"))
		}, "PCR 7"},
		{"only SHA-1 left right", func(l *edited, _ [][]byte) {
			l.events[2].digests[1].sum = bytes.Repeat([]byte{1}, 32)
		}, "PCR 7"},
		{"locality feigned", func(l *edited, _ [][]byte) {
			l.events = append([]edit{{kind: noAction, data: []byte(startupLocality + "\x03")}}, l.events...)
		}, "PCR 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			selection := attest.Selection{Bank: "sha256", PCRs: all}
			l := takeApart(t, readLog(t, rhel8))
			values := quoted(mustParse(t, l.bytes(), "sha256"), all)
			tt.bend(l, values)
			p, err := mustParse(t, l.bytes(), "sha256").Against(selection, values)
			if tt.words != "" {
				refused(t, err, tt.words)
			} else if err != nil || !p.Covers(7) || p.Covers(5) || p.Covers(8) || p.Covers(-1) {
				t.Fatal(p, err)
			}
		})
	}
}

func (l *edited) without(pcr uint32) {
	kept := l.events[:0]
	for _, e := range l.events {
		if e.pcr != pcr {
			kept = append(kept, e)
		}
	}
	l.events = kept
}

// A PCR without events is explained by its reset value and by nothing else.
func TestAgainstEventless(t *testing.T) {
	e := takeApart(t, readLog(t, rhel8))
	e.without(6)
	l := mustParse(t, e.bytes(), "sha256")
	selection := attest.Selection{Bank: "sha256", PCRs: []int{6}}
	if _, err := l.Against(selection, [][]byte{make([]byte, 32)}); err != nil {
		t.Error(err)
	}
	_, err := l.Against(selection, [][]byte{bytes.Repeat([]byte{0xff}, 32)})
	refused(t, err, "PCR 6: 0 events")
}

func TestAgainstOtherSelection(t *testing.T) {
	l := mustParse(t, readLog(t, rhel8), "sha256")
	values := quoted(l, allEight)
	_, err := l.Against(attest.Selection{Bank: "sha384", PCRs: allEight}, values)
	refused(t, err, "another selection")
	_, err = l.Against(attest.Selection{Bank: "sha256", PCRs: allEight}, values[:7])
	refused(t, err, "another selection")
}
