// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
)

func texts(v *Verdict) (out []string) {
	for _, f := range v.Findings {
		out = append(out, f.Text)
	}
	return out
}

// Two real machines: what an operator reads when one boots as the other did.
func TestNearest(t *testing.T) {
	now, before := boot(t, noSB, usual), boot(t, noDBX, usual)
	p := only(PCRValues, Enforce, captured(boot(t, cos101, usual)), Baseline{Entries: []Entry{{State: *before, From: "db7"}}})
	v := p.Judge(now, noon)
	want := []string{
		"PCR digest " + now.PCRDigest[:12] + "… is in no live baseline; nearest is the entry from db7, from which PCRs 1, 4, 7 differ",
		"PCR 1: moved",
		"PCR 4: /EFI/ubuntu/shimx64.efi: digest 6265b732b005…, was /EFI/ubuntu/shimx64.efi d99c93fcb042…",
		"PCR 7: moved: dbx differs",
	}
	if got := texts(v); !slices.Equal(got, want) {
		t.Fatalf("%q\nwant %q", got, want)
	}
	f := v.Findings[2]
	if *f.PCR != 4 || f.Event != 23 || f.Component != "/EFI/ubuntu/shimx64.efi" || f.Check != PCRValues || f.Rule != attest.RuleBootPolicy {
		t.Errorf("%+v", f)
	}
	if text, err := json.Marshal(v); err != nil || !strings.Contains(string(text), `"pcr":4,"event":23,"component":"/EFI/ubuntu/shimx64.efi"`) {
		t.Error(string(text), err)
	}
}

func TestNearestTexts(t *testing.T) {
	base := boot(t, rhel8, usual)
	move := func(pcr int, bend func(*State)) *State {
		return bent(base, func(s *State) {
			s.PCRDigest = strings.Repeat("0", 64)
			s.Values[slices.Index(s.PCRs, pcr)] = strings.Repeat("1", 64)
			bend(s)
		})
	}
	for _, tt := range []struct {
		name        string
		now, before *State
		want        []string
	}{
		{"added", base, move(4, func(s *State) { s.Components = s.Components[:2] }),
			[]string{"PCR 4: event 77: digest e4c0382f98fe… is new"}},
		{"gone", move(4, func(s *State) { s.Components = s.Components[:1] }), base,
			[]string{"PCR 4: moved: /EFI/redhat/grubx64.efi e8a268c431da… is gone"}},
		{"unnamed is gone", move(4, func(s *State) { s.Components = s.Components[:2] }), base,
			[]string{"PCR 4: moved: e4c0382f98fe… is gone"}},
		{"marks alone", move(4, func(*State) {}), base, []string{"PCR 4: moved, with the same components"}},
		{"option ROM", move(2, func(s *State) {
			s.Components = append([]Component{{PCR: 2, Event: 9, Digest: strings.Repeat("a", 64), Name: "PciRoot(0x0)"}}, s.Components...)
		}), base, []string{"PCR 2: PciRoot(0x0): digest aaaaaaaaaaaa… is new"}},
		{"Secure Boot and keys", move(7, func(s *State) { s.SecureBoot = "off"; delete(s.Keys, "PK") }), base,
			[]string{"PCR 7: moved: Secure Boot is off, was on, PK differs"}},
		{"PCR 7, nothing we know", move(7, func(*State) {}), base, []string{"PCR 7: moved"}},
		{"PCR 0", move(0, func(*State) {}), base, []string{"PCR 0: moved"}},
		{"entry without log", base, move(4, func(s *State) { s.Log = false }), []string{"PCR 4: moved"}},
		{"state without log", move(4, func(s *State) { s.Log = false }), base, []string{"PCR 4: moved"}},
		{"values unknown", move(4, func(s *State) { s.Values = nil }), base, nil},
		{"entry's values unknown", base, move(4, func(s *State) { s.Values = nil }), nil},
	} {
		v := only(PCRValues, Enforce, captured(tt.before)).Judge(tt.now, noon)
		if got := texts(v); v.Accepted || !slices.Equal(got[1:], tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestEntryWithoutHost(t *testing.T) {
	s := boot(t, rhel8, usual)
	if got := (&Entry{State: *s}).String(); got != "the entry "+s.ID()[:12]+"…" {
		t.Error(got)
	}
}
