// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"funlab.casa/omen/attest"
)

func TestRealLogsParse(t *testing.T) {
	sha1Only := map[string]bool{"debian-10": true, "ebs_event_missing": true, "option_rom": true, "short_no_action": true}
	noSHA384 := map[string]bool{"arch-linux-workstation": true, "crypto_agile": true, "glinux-alex": true}
	for _, name := range logNames(t) {
		t.Run(name, func(t *testing.T) {
			raw := readLog(t, name)
			for _, bank := range []string{"sha256", "sha384"} {
				l, err := Parse(raw, bank)
				switch {
				case sha1Only[name]:
					refused(t, err, "SHA-1 only")
				case bank == "sha384" && noSHA384[name]:
					refused(t, err, "no sha384 digests")
				case err != nil:
					t.Fatal(err)
				default:
					wantEvents(t, l, takeApart(t, raw))
				}
			}
		})
	}
}

// wantEvents compares with a second, simpler reading.
func wantEvents(t *testing.T, l *Log, want *edited) {
	t.Helper()
	i := 0
	for e := range l.Events() {
		w := want.events[i]
		i++
		if e.Index != i || e.PCR != int(w.pcr) || e.Type != w.kind || !bytes.Equal(e.Data, w.data) {
			t.Fatalf("event %d is %+v", i, e)
		}
		for _, d := range w.digests {
			if d.id == l.bank.algorithm && !bytes.Equal(d.sum, e.Digest) {
				t.Fatalf("event %d has digest %x", i, e.Digest)
			}
		}
	}
	if i != len(want.events) {
		t.Fatalf("%d of %d events", i, len(want.events))
	}
}

func TestParseRefusesBank(t *testing.T) {
	for _, bank := range []string{"", "sha1", "SHA256", "sha512"} {
		_, err := Parse(readLog(t, rhel8), bank)
		var r *attest.Refusal
		if !errors.As(err, &r) || r.Rule != attest.RulePCRSelection {
			t.Errorf("%q: %v", bank, err)
		}
	}
}

func TestParseRefusesBytes(t *testing.T) {
	whole := readLog(t, rhel8)
	headerSize := len(takeApart(t, whole).header)
	u32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	u16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
	}
	for _, tt := range []struct {
		name  string
		bend  func([]byte) []byte
		words string
	}{
		{"empty", func([]byte) []byte { return nil }, "truncated in its first event"},
		{"header cut", func(b []byte) []byte { return b[:40] }, "truncated in its first event"},
		{"header alone", func(b []byte) []byte { return b[:headerSize] }, "no event extends"},
		{"one byte short", func(b []byte) []byte { return b[:len(b)-1] }, "truncated in event 82"},
		{"cut within a count", func(b []byte) []byte { return b[:headerSize+10] }, "truncated in event 1"},
		{"cut within a digest", func(b []byte) []byte { return b[:headerSize+20] }, "truncated in event 1"},
		{"one byte more", func(b []byte) []byte { return append(b, 0) }, "truncated in event 83"},
		{"zeros after the end", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, "event 83 has no sha256 digest"},
		{"longer than 1 MiB", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }, "bytes"},
		{"header size lies, more", u32(28, 0xffffffff), "truncated in its first event"},
		{"header size lies, less", u32(28, 20), "algorithms"},
		{"header extends", u32(4, 8), "SHA-1 only"},
		{"header of PCR 1", u32(0, 1), "header with PCR 1"},
		{"header with digest", u32(8, 1), "or a digest"},
		{"header of an older form", func(b []byte) []byte { b[32+14] = '2'; return b }, "SHA-1 only"},
		{"no algorithms", u32(56, 0), "0 algorithms"},
		{"4 Gi algorithms", u32(56, 0xffffffff), "4294967295 algorithms"},
		{"an algorithm fewer", u32(56, 2), "header of another length"},
		{"an algorithm more", u32(56, 4), "header"},
		{"digest size lies", u16(66, 20), "algorithm 0x000b of 20 bytes"},
		{"algorithm twice", func(b []byte) []byte { return u16(68, 0xb)(u16(70, 32)(b)) }, "twice"},
		{"unknown algorithm of no size", func(b []byte) []byte { return u16(60, 0x99)(u16(62, 0)(b)) }, "of 0 bytes"},
		{"vendor bytes that are not there", func(b []byte) []byte { b[72] = 9; return b }, "header of another length"},
		{"digest count lies", u32(headerSize+8, 0xffffffff), "4294967295 digests"},
		{"event size lies", u32(headerSize+118, 0xffffffff), "truncated in event 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.bend(bytes.Clone(whole)), "sha256")
			refused(t, err, tt.words)
		})
	}
}

func TestParseRefusesEvents(t *testing.T) {
	locality := func(pcr uint32, rest string) edit {
		return edit{pcr: pcr, kind: noAction, data: []byte(startupLocality + rest)}
	}
	front := func(events ...edit) func(*edited) {
		return func(l *edited) { l.events = append(events, l.events...) }
	}
	for _, tt := range []struct {
		name  string
		bend  func(*edited)
		words string
	}{
		{"SHA-1 digest alone", func(l *edited) { l.events[4].digests = l.events[4].digests[:1] }, "event 5 has no sha256 digest"},
		{"no digest", func(l *edited) { l.events[4].digests = nil }, "event 5 has no sha256 digest"},
		{"digest twice", func(l *edited) { l.events[4].digests[2] = l.events[4].digests[1] }, "algorithm 0x000b twice"},
		{"unannounced algorithm", func(l *edited) { l.events[4].digests[0].id = 0x12 }, "algorithm 0x0012"},
		{"PCR that is none", func(l *edited) { l.events[4].pcr = 24 }, "event 5 extends PCR 24"},
		{"PCR 0xffffffff", func(l *edited) { l.events[4].pcr = 0xffffffff }, "extends PCR 4294967295"},
		{"nothing measured", func(l *edited) {
			for i := range l.events {
				l.events[i].kind = noAction
			}
		}, "no event extends"},
		{"stripped of all events", func(l *edited) { l.events = nil }, "no event extends"},
		{"locality 1", front(locality(0, "\x01")), "not 0, 3 or 4"},
		{"locality of two bytes", front(locality(0, "\x03\x00")), "not 0, 3 or 4"},
		{"locality of no bytes", front(locality(0, "")), "not 0, 3 or 4"},
		{"locality twice", front(locality(0, "\x03"), locality(0, "\x03")), "StartupLocality twice"},
		{"locality late", func(l *edited) { l.events = append(l.events, locality(0, "\x03")) }, "after an extend"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := takeApart(t, readLog(t, rhel8))
			tt.bend(l)
			_, err := Parse(l.bytes(), "sha256")
			refused(t, err, tt.words)
		})
	}
}

// What a log may hold besides: digests in another order or in fewer banks than
// announced, and notes to nobody about a PCR that is none.
func TestParseAccepts(t *testing.T) {
	l := takeApart(t, readLog(t, rhel8))
	d := l.events[4].digests
	l.events[4].digests = []algDigest{d[2], d[1]}
	l.events = append(l.events, edit{pcr: 0xffffffff, kind: noAction, digests: l.events[5].digests, data: []byte("note")})
	l.events = append(l.events, edit{pcr: 3, kind: noAction, data: []byte(startupLocality + "\x09")})
	got := mustParse(t, l.bytes(), "sha256")
	want := mustParse(t, readLog(t, rhel8), "sha256")
	for pcr := range 24 {
		g, gn := got.Replay(pcr)
		w, wn := want.Replay(pcr)
		if !bytes.Equal(g, w) || gn != wn {
			t.Errorf("PCR %d: %x after %d events, want %x after %d", pcr, g, gn, w, wn)
		}
	}
}

// A claim in a log costs no memory.
func TestParseAllocatesNothingClaimed(t *testing.T) {
	raw := bytes.Clone(readLog(t, rhel8))
	binary.LittleEndian.PutUint32(raw[len(takeApart(t, raw).header)+118:], 0xfffffff0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := Parse(raw, "sha256"); err == nil {
			t.Fatal("accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 4096 {
		t.Fatalf("%d bytes a parse", each)
	}
}
