// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
)

func TestObserve(t *testing.T) {
	for _, s := range []attest.Selection{usual, beyond} {
		state := boot(t, rhel8, s)
		_, digest := quote(t, readLog(t, rhel8), s)
		if !state.Log || state.SecureBoot != eventlog.SecureBootOn || len(state.Keys) != 4 || len(state.Components) != 3 ||
			state.PCRDigest != hex.EncodeToString(digest[:]) || len(state.Values) != len(s.PCRs) || !reflect.DeepEqual(state.Selection(), s) {
			t.Errorf("%+v", state)
		}
		if c := state.Components[0]; c.Name != "/EFI/redhat/shimx64.efi" || c.PCR != 4 || c.Event == 0 || len(c.Digest) != 2*s.Hash().Size() {
			t.Errorf("%+v", c)
		}
	}
}

func TestObserveWithoutLog(t *testing.T) {
	values := silent(t, rhel8, usual)
	_, digest := quote(t, readLog(t, rhel8), usual)
	for _, s := range []*State{values, FromDigest(usual, digest)} {
		if s.Log || s.SecureBoot != eventlog.SecureBootUnknown || s.SecureBootReason != "no event log" || s.Keys != nil || s.Components != nil {
			t.Errorf("%+v", s)
		}
	}
	if values.ID() == boot(t, rhel8, usual).ID() {
		t.Error("a log does not change the ID")
	}
}

func TestObserveRefuses(t *testing.T) {
	raw := readLog(t, rhel8)
	sha1 := readLog(t, "debian-10")
	for _, tt := range []struct {
		name string
		bend func(s *attest.Selection, values [][]byte, digest *[32]byte, log *[]byte) [][]byte
		rule attest.Rule
	}{
		{"no selection", func(s *attest.Selection, v [][]byte, _ *[32]byte, _ *[]byte) [][]byte { s.PCRs = nil; return v }, attest.RulePCRSelection},
		{"another bank", func(s *attest.Selection, v [][]byte, _ *[32]byte, _ *[]byte) [][]byte { s.Bank = "sha1"; return v }, attest.RulePCRSelection},
		{"a value more", func(_ *attest.Selection, v [][]byte, _ *[32]byte, _ *[]byte) [][]byte { return append(v, v[0]) }, attest.RulePCRDigest},
		{"no values", func(*attest.Selection, [][]byte, *[32]byte, *[]byte) [][]byte { return nil }, attest.RulePCRDigest},
		{"values joined otherwise", func(_ *attest.Selection, v [][]byte, _ *[32]byte, _ *[]byte) [][]byte {
			v[0], v[1] = append(bytes.Clone(v[0]), v[1][0]), v[1][1:]
			return v
		}, attest.RulePCRDigest},
		{"a value bent", func(_ *attest.Selection, v [][]byte, _ *[32]byte, _ *[]byte) [][]byte { v[3][0]++; return v }, attest.RulePCRDigest},
		{"another digest", func(_ *attest.Selection, v [][]byte, d *[32]byte, _ *[]byte) [][]byte { d[0]++; return v }, attest.RulePCRDigest},
		{"empty log", func(_ *attest.Selection, v [][]byte, _ *[32]byte, l *[]byte) [][]byte { *l = []byte{}; return v }, attest.RuleEventLog},
		{"log cut", func(_ *attest.Selection, v [][]byte, _ *[32]byte, l *[]byte) [][]byte {
			*l = raw[:len(raw)-50]
			return v
		}, attest.RuleEventLog},
		{"log of SHA-1", func(_ *attest.Selection, v [][]byte, _ *[32]byte, l *[]byte) [][]byte { *l = sha1; return v }, attest.RuleEventLog},
		{"log of another machine", func(_ *attest.Selection, v [][]byte, _ *[32]byte, l *[]byte) [][]byte {
			*l = readLog(t, cos101)
			return v
		}, attest.RuleEventLog},
	} {
		s, log := usual, raw
		values, digest := quote(t, raw, s)
		values = tt.bend(&s, values, &digest, &log)
		state, err := Observe(s, values, digest, log)
		var r *attest.Refusal
		if state != nil || !errors.As(err, &r) || r.Rule != tt.rule {
			t.Errorf("%s: %v, %v; want %s", tt.name, state, err, tt.rule)
		}
	}
}

// The ID is of what is measured: remarks do not change it, all else does.
func TestStateID(t *testing.T) {
	base := boot(t, rhel8, usual)
	copied := func() *State {
		text, err := json.Marshal(base)
		if err != nil {
			t.Fatal(err)
		}
		s := new(State)
		if err := json.Unmarshal(text, s); err != nil || !reflect.DeepEqual(s, base) {
			t.Fatalf("JSON there and back: %+v, %v", s, err)
		}
		return s
	}
	remarks := copied()
	remarks.Components[0].Name, remarks.Components[0].Event, remarks.SecureBootReason = "x", 99, "y"
	if remarks.ID() != base.ID() || len(base.ID()) != 64 {
		t.Error("remarks change the ID")
	}
	for name, bend := range map[string]func(*State){
		"bank":              func(s *State) { s.Bank = "sha384" },
		"pcrs":              func(s *State) { s.PCRs[0] = 5 },
		"value":             func(s *State) { s.Values[0] = s.Values[1] },
		"no values":         func(s *State) { s.Values = nil },
		"digest":            func(s *State) { s.PCRDigest = s.Values[0] },
		"log":               func(s *State) { s.Log = false },
		"secure boot":       func(s *State) { s.SecureBoot = "off" },
		"key":               func(s *State) { s.Keys["db"] = s.Keys["PK"] },
		"key gone":          func(s *State) { delete(s.Keys, "db") },
		"component":         func(s *State) { s.Components[0].Digest = s.Components[1].Digest },
		"component's PCR":   func(s *State) { s.Components[0].PCR = 2 },
		"component gone":    func(s *State) { s.Components = s.Components[1:] },
		"more components":   func(s *State) { s.MoreComponents = true },
		"components turned": func(s *State) { s.Components[0], s.Components[1] = s.Components[1], s.Components[0] },
	} {
		s := copied()
		bend(s)
		if s.ID() == base.ID() {
			t.Errorf("%s does not change the ID", name)
		}
	}
}

// The largest State there can be, with names that JSON makes longer.
func TestStateIsBounded(t *testing.T) {
	digest := strings.Repeat("f", 96)
	s := &State{Bank: "sha384", PCRDigest: digest[:64], Log: true, MoreComponents: true, SecureBoot: "unknown",
		SecureBootReason: strings.Repeat("r", 80), Keys: map[string]string{}}
	for pcr := range 24 {
		s.PCRs, s.Values = append(s.PCRs, pcr), append(s.Values, digest)
	}
	for _, name := range keyNames {
		s.Keys[name] = digest[:64]
	}
	name := strings.Repeat(`\x0a`, eventlog.MaxName/4)
	for range MaxComponents {
		s.Components = append(s.Components, Component{PCR: 4, Event: 20000, Digest: digest, Name: name})
	}
	text, err := json.Marshal(s)
	if err != nil || len(text) > 32<<10 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	var b Baseline
	for range MaxEntries {
		b.Entries = append(b.Entries, Entry{State: *s, From: strings.Repeat("h", 63), Added: noon, Expires: noon})
	}
	if text, err = json.Marshal(b); err != nil || len(text) > 768<<10 {
		t.Fatalf("%d bytes for a baseline, %v", len(text), err)
	}
}

func FuzzObserve(f *testing.F) {
	for _, name := range []string{rhel8, noDBX, cos101, "glinux-alex", "debian-10"} {
		f.Add(readLog(f, name))
	}
	policy := &Policy{PCRValues: Monitor, Baselines: []Baseline{{Entries: []Entry{{State: *boot(f, noSB, usual)}}}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := eventlog.Parse(raw, "sha256")
		if err != nil {
			return
		}
		if l == nil {
			t.Fatal("neither log nor error")
		}
		values, digest := quote(t, raw, usual)
		state, err := Observe(usual, values, digest, raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(state)
		if err != nil || len(text) > 32<<10 {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		v := policy.Judge(state, noon)
		if v.Accepted != (v.Err() == nil) {
			t.Fatalf("%+v", v)
		}
		if text, err = json.Marshal(v); err != nil || len(text) > 64<<10 {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
	})
}
