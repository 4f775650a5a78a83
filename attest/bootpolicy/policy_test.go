// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParseMode(t *testing.T) {
	for _, word := range []string{"off", "monitor", "enforce"} {
		if m, err := ParseMode(word); err != nil || string(m) != word {
			t.Errorf("%s: %v, %v", word, m, err)
		}
	}
	for _, word := range []string{"", "Off", "on", "enforced", "monitor "} {
		if m, err := ParseMode(word); err == nil || m != Enforce {
			t.Errorf("%q: %v, %v", word, m, err)
		}
	}
}

func TestNeeds(t *testing.T) {
	for _, tt := range []struct {
		p    *Policy
		want Needs
	}{
		{only(PCRValues, Off), Needs{}},
		{only(PCRValues, Enforce), Needs{Digest: true}},
		{only(PCRValues, Monitor), Needs{Digest: true}},
		{only(SecureBoot, Monitor), Needs{Digest: true, Log: true}},
		{only(SecureBootKeys, Enforce), Needs{Digest: true, Log: true}},
		{only(BootComponents, "typo"), Needs{Digest: true, Log: true}},
		{new(Policy), Needs{Digest: true, Log: true}},
	} {
		if got := tt.p.Needs(); got != tt.want {
			t.Errorf("%v: %+v", tt.p.modes(), got)
		}
	}
}

func TestPolicyJSON(t *testing.T) {
	p := &Policy{PCRValues: Enforce, SecureBoot: Monitor, SecureBootKeys: Off, BootComponents: Off,
		Baselines:   []Baseline{captured(boot(t, rhel8, usual)).until(noon), {PCRDigests: []string{"a"}}},
		HostDigests: []string{"b"}}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	got := new(Policy)
	if err := json.Unmarshal(text, got); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBaselineCheck(t *testing.T) {
	d32, d48 := strings.Repeat("ab", 32), strings.Repeat("ab", 48)
	good := Baseline{
		PCRDigests: []string{d32}, Components: []string{d32, d48},
		Keys: map[string][]string{"PK": {d32}, "KEK": {d32}, "db": {d32}, "dbx": {d32, d32}},
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, b := range map[string]Baseline{
		"PCR digest of SHA-384":  {PCRDigests: []string{d48}},
		"PCR digest in capitals": {PCRDigests: []string{strings.ToUpper(d32)}},
		"PCR digest empty":       {PCRDigests: []string{""}},
		"component of SHA-1":     {Components: []string{d32[:40]}},
		"component no hex":       {Components: []string{"z" + d32[1:]}},
		"key's name":             {Keys: map[string][]string{"DB": {d32}}},
		"key's digest":           {Keys: map[string][]string{"db": {d48}}},
		"key absent":             {Keys: map[string][]string{"db": {absent}}},
		"too many":               {Components: make([]string, MaxListed+1)},
		"too many entries":       {Entries: make([]Entry, MaxEntries+1)},
	} {
		if b.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
