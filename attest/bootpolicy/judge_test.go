// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

// only is a policy with one check in a mode.
func only(check Check, mode Mode, baselines ...Baseline) *Policy {
	p := &Policy{PCRValues: Off, SecureBoot: Off, SecureBootKeys: Off, BootComponents: Off, Baselines: baselines}
	switch check {
	case PCRValues:
		p.PCRValues = mode
	case SecureBoot:
		p.SecureBoot = mode
	case SecureBootKeys:
		p.SecureBootKeys = mode
	case BootComponents:
		p.BootComponents = mode
	}
	return p
}

func captured(states ...*State) (b Baseline) {
	for _, s := range states {
		b.Entries = append(b.Entries, Entry{State: *s, From: "web1"})
	}
	return b
}

func (b Baseline) until(expires time.Time) Baseline {
	for i := range b.Entries {
		b.Entries[i].Expires = expires
	}
	return b
}

// bent is a copy of a state with something changed.
func bent(s *State, bend func(*State)) *State {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	c := new(State)
	if err := json.Unmarshal(text, c); err != nil {
		panic(err)
	}
	bend(c)
	return c
}

const ok = attest.Rule("") // accepted

// TestChecks judges each row by the check alone, in each mode.
func TestChecks(t *testing.T) {
	rhel, other, quiet := boot(t, rhel8, usual), boot(t, noSB, usual), silent(t, rhel8, usual)
	only7 := boot(t, rhel8, seven)
	digests := Baseline{PCRDigests: []string{other.PCRDigest, rhel.PCRDigest}}
	keyList := func(name, digest string) Baseline { return Baseline{Keys: map[string][]string{name: {digest}}} }
	shim := Baseline{Components: []string{rhel.Components[0].Digest}}
	loaders := Baseline{Components: []string{rhel.Components[1].Digest, rhel.Components[2].Digest}}
	for _, tt := range []struct {
		name      string
		check     Check
		state     *State
		baselines []Baseline
		rule      attest.Rule
		text      string
	}{
		{"captured", PCRValues, rhel, []Baseline{captured(other, rhel)}, ok, ""},
		{"captured, no log", PCRValues, quiet, []Baseline{captured(rhel)}, ok, ""},
		{"in a list", PCRValues, rhel, []Baseline{{}, digests}, ok, ""},
		{"digest alone", PCRValues, bent(quiet, func(s *State) { s.Values = nil }), []Baseline{digests}, ok, ""},
		{"in none", PCRValues, rhel, []Baseline{captured(other)}, attest.RuleBootPolicy, "nearest is the entry from web1"},
		{"no baseline", PCRValues, rhel, nil, attest.RuleBootPolicy, "is in no live baseline"},
		{"same digest, other selection", PCRValues, rhel, []Baseline{captured(bent(rhel, func(s *State) { s.PCRs[1] = 6 }))}, attest.RuleBootPolicy, "is in no live baseline"},
		{"same digest, other bank", PCRValues, rhel, []Baseline{captured(bent(rhel, func(s *State) { s.Bank = "sha384" }))}, attest.RuleBootPolicy, "is in no live baseline"},

		{"on", SecureBoot, rhel, nil, ok, ""},
		{"off", SecureBoot, other, []Baseline{captured(other)}, attest.RuleBootPolicy, "Secure Boot is off"},
		{"no log", SecureBoot, quiet, nil, attest.RuleEventLog, "no event log"},
		{"unknown", SecureBoot, bent(rhel, func(s *State) { s.SecureBoot, s.SecureBootReason = "unknown", "event 3 is odd" }), nil, attest.RuleEventLog, "event 3 is odd"},
		{"a word that is none", SecureBoot, bent(rhel, func(s *State) { s.SecureBoot = "" }), nil, attest.RuleEventLog, "unknown"},
		{"PCR 7 not quoted", SecureBoot, boot(t, rhel8, attest.Selection{Bank: "sha256", PCRs: []int{0, 4}}), nil, attest.RuleEventLog, "PCR 7 is not among"},

		{"captured", SecureBootKeys, rhel, []Baseline{captured(other, rhel)}, ok, ""},
		{"each from another entry", SecureBootKeys, rhel, []Baseline{captured(
			bent(rhel, func(s *State) { s.Keys["db"] = s.Keys["PK"] }), bent(rhel, func(s *State) { s.Keys["dbx"] = s.Keys["PK"] }))}, ok, ""},
		{"in a list", SecureBootKeys, rhel, []Baseline{keyList("dbx", rhel.Keys["dbx"])}, ok, ""},
		{"other dbx", SecureBootKeys, boot(t, noDBX, usual), []Baseline{captured(rhel)}, attest.RuleBootPolicy, "PCR 7: dbx: digest e3b0c44298fc… is in no live baseline"},
		{"not in the list", SecureBootKeys, rhel, []Baseline{keyList("db", rhel.Keys["dbx"])}, attest.RuleBootPolicy, "PCR 7: db: digest"},
		{"not measured", SecureBootKeys, bent(rhel, func(s *State) { delete(s.Keys, "dbx") }), []Baseline{captured(rhel)}, attest.RuleBootPolicy, "dbx was not measured"},
		{"not measured, as captured", SecureBootKeys, bent(rhel, func(s *State) { delete(s.Keys, "dbx") }), []Baseline{captured(bent(rhel, func(s *State) { delete(s.Keys, "dbx") }))}, ok, ""},
		{"measured, captured without", SecureBootKeys, rhel, []Baseline{captured(bent(rhel, func(s *State) { delete(s.Keys, "dbx") }))}, attest.RuleBootPolicy, "dbx: digest"},
		{"no statement", SecureBootKeys, rhel, nil, attest.RuleBootPolicy, "no live baseline names Secure Boot keys"},
		{"no statement about keys", SecureBootKeys, rhel, []Baseline{digests, shim, captured(quiet)}, attest.RuleBootPolicy, "no live baseline names Secure Boot keys"},
		{"entry of an unknown state", SecureBootKeys, rhel, []Baseline{captured(bent(rhel, func(s *State) { s.SecureBoot = "unknown" }))}, attest.RuleBootPolicy, "no live baseline names Secure Boot keys"},
		{"list of no digests", SecureBootKeys, rhel, []Baseline{{Keys: map[string][]string{"db": {}}}}, attest.RuleBootPolicy, "no live baseline names Secure Boot keys"},
		{"no log", SecureBootKeys, quiet, []Baseline{captured(rhel)}, attest.RuleEventLog, "no event log"},

		{"captured", BootComponents, rhel, []Baseline{captured(rhel)}, ok, ""},
		{"of two lists", BootComponents, rhel, []Baseline{shim, loaders}, ok, ""},
		{"of list and entry", BootComponents, rhel, []Baseline{shim, captured(bent(rhel, func(s *State) { s.Components = s.Components[1:] }))}, ok, ""},
		{"one unknown", BootComponents, rhel, []Baseline{loaders}, attest.RuleBootPolicy, "PCR 4: /EFI/redhat/shimx64.efi: digest 40d6cae02973… is in no live baseline"},
		{"one unknown and unnamed", BootComponents, rhel, []Baseline{shim}, attest.RuleBootPolicy, "PCR 4: /EFI/redhat/grubx64.efi"},
		{"no statement", BootComponents, rhel, []Baseline{digests, captured(quiet)}, attest.RuleBootPolicy, "no live baseline names components"},
		{"nothing booted", BootComponents, bent(rhel, func(s *State) { s.Components = nil }), []Baseline{captured(rhel)}, attest.RuleEventLog, "PCR 4: nothing was measured"},
		{"more than can be judged", BootComponents, bent(rhel, func(s *State) { s.MoreComponents = true }), []Baseline{captured(rhel)}, attest.RuleBootPolicy, "more than 64 components"},
		{"PCR 4 not quoted", BootComponents, only7, []Baseline{captured(rhel)}, attest.RuleEventLog, "PCR 4 is not among"},
		{"no log", BootComponents, quiet, []Baseline{captured(rhel)}, attest.RuleEventLog, "no event log"},
	} {
		t.Run(string(tt.check)+"/"+tt.name, func(t *testing.T) {
			wantEnforced(t, only(tt.check, Enforce, tt.baselines...), tt.state, tt.rule, tt.text)
			wantEnforced(t, only(tt.check, "enforced", tt.baselines...), tt.state, tt.rule, tt.text)
			wantMonitored(t, only(tt.check, Monitor, tt.baselines...), tt.state, tt.check, tt.rule, tt.text)
			if v := only(tt.check, Off, tt.baselines...).Judge(tt.state, noon); !v.Accepted || len(v.Findings) != 0 {
				t.Errorf("off: %+v", v)
			}
		})
	}
}

func wantEnforced(t *testing.T, p *Policy, s *State, rule attest.Rule, text string) {
	t.Helper()
	v := p.Judge(s, noon)
	if rule == ok {
		if !v.Accepted || v.Err() != nil || len(v.Findings) != 0 || len(v.WouldRefuse) != 0 {
			t.Errorf("enforce: %+v", v)
		}
		return
	}
	var r *attest.Refusal
	if v.Accepted || !errors.As(v.Err(), &r) || r.Rule != rule || !strings.Contains(r.Detail, text) || len(v.WouldRefuse) != 0 {
		t.Errorf("enforce: %v of %+v; want %s, %q", v.Err(), v, rule, text)
	}
	if f := v.Findings[0]; f.Mode != Enforce || f.Text == "" {
		t.Errorf("enforce: %+v", f)
	}
}

func wantMonitored(t *testing.T, p *Policy, s *State, check Check, rule attest.Rule, text string) {
	t.Helper()
	v := p.Judge(s, noon)
	if !v.Accepted || v.Err() != nil || (len(v.Findings) > 0) != (rule != ok) {
		t.Errorf("monitor: %+v", v)
	}
	if rule == ok {
		return
	}
	f := v.Findings[0]
	if !slices.Equal(v.WouldRefuse, []Check{check}) || f.Mode != Monitor || f.Check != check || f.Rule != rule || !strings.Contains(f.Text, text) {
		t.Errorf("monitor: %+v", v)
	}
}

func TestDefaultsRefuse(t *testing.T) {
	rhel := boot(t, rhel8, usual)
	for name, v := range map[string]*Verdict{
		"nil verdict":   nil,
		"zero verdict":  {},
		"no state":      only(PCRValues, Off).Judge(nil, noon),
		"zero policy":   new(Policy).Judge(rhel, noon),
		"unknown words": (&Policy{PCRValues: "OFF", SecureBoot: "none", SecureBootKeys: "Monitor", BootComponents: " off"}).Judge(rhel, noon),
		"zero state":    only(PCRValues, Enforce, captured(rhel)).Judge(&State{}, noon),
	} {
		var r *attest.Refusal
		if err := v.Err(); !errors.As(err, &r) || r.Rule != attest.RuleBootPolicy {
			t.Errorf("%s: %v", name, err)
		}
		if v != nil && v.Accepted {
			t.Errorf("%s: accepted", name)
		}
	}
	if v := only(PCRValues, Off).Judge(rhel, noon); !v.Accepted {
		t.Error("all off refuses")
	}
}

func TestHostDigests(t *testing.T) {
	rhel := boot(t, rhel8, usual)
	p := only(PCRValues, Enforce)
	p.HostDigests = []string{rhel.PCRDigest}
	if v := p.Judge(rhel, noon); !v.Accepted || !v.Until.IsZero() {
		t.Errorf("%+v", v)
	}
	p.HostDigests = []string{boot(t, noSB, usual).PCRDigest}
	if v := p.Judge(rhel, noon); v.Accepted {
		t.Errorf("%+v", v)
	}
}

// A monitored check that fails refuses nobody, and does not save from another
// that does.
func TestMonitorBesideEnforce(t *testing.T) {
	off := boot(t, noSB, usual)
	p := &Policy{PCRValues: Enforce, SecureBoot: Monitor, SecureBootKeys: Off, BootComponents: Monitor, Baselines: []Baseline{captured(off)}}
	v := p.Judge(off, noon)
	if !v.Accepted || !slices.Equal(v.WouldRefuse, []Check{SecureBoot}) || len(v.Findings) != 1 {
		t.Errorf("%+v", v)
	}
	v = p.Judge(boot(t, noDBX, usual), noon)
	if v.Accepted || !slices.Equal(v.WouldRefuse, []Check{SecureBoot, BootComponents}) || v.Err() == nil {
		t.Errorf("%+v", v)
	}
}

func TestExpiry(t *testing.T) {
	rhel, other := boot(t, rhel8, usual), boot(t, noSB, usual)
	soon, late := noon.Add(time.Hour), noon.Add(48*time.Hour)
	list := Baseline{Components: []string{rhel.Components[0].Digest, rhel.Components[1].Digest}}
	all := &Policy{Baselines: []Baseline{captured(rhel).until(late)}}
	for _, tt := range []struct {
		name  string
		p     *Policy
		at    time.Time
		until time.Time
		ok    bool
	}{
		{"never", only(PCRValues, Enforce, captured(rhel)), noon, time.Time{}, true},
		{"soon", only(PCRValues, Enforce, captured(rhel).until(soon)), noon, soon, true},
		{"over at that instant", only(PCRValues, Enforce, captured(rhel).until(soon)), soon, time.Time{}, false},
		{"over", only(PCRValues, Enforce, captured(rhel).until(soon)), late, time.Time{}, false},
		{"the later of two", only(PCRValues, Enforce, captured(rhel).until(late), captured(rhel).until(soon)), noon, late, true},
		{"a list too", only(PCRValues, Enforce, captured(rhel).until(soon), Baseline{PCRDigests: []string{rhel.PCRDigest}}), noon, time.Time{}, true},
		{"another's expiry", only(PCRValues, Enforce, captured(other).until(soon), captured(rhel)), noon, time.Time{}, true},
		{"keys", only(SecureBootKeys, Enforce, captured(rhel).until(soon)), noon, soon, true},
		{"keys over", only(SecureBootKeys, Enforce, captured(rhel).until(soon)), soon, time.Time{}, false},
		{"one component rests on the entry", only(BootComponents, Enforce, captured(rhel).until(soon), list), noon, soon, true},
		{"components over", only(BootComponents, Enforce, captured(rhel).until(soon), list), soon, time.Time{}, false},
		{"the later for components", only(BootComponents, Enforce, captured(rhel).until(soon), captured(rhel).until(late)), noon, late, true},
		{"all checks", all, noon, late, true},
		{"monitored", only(PCRValues, Monitor, captured(rhel).until(soon)), noon, soon, true},
	} {
		if v := tt.p.Judge(rhel, tt.at); v.Accepted != tt.ok || !v.Until.Equal(tt.until) {
			t.Errorf("%s: %+v", tt.name, v)
		}
	}
	v := only(PCRValues, Enforce, captured(rhel).until(soon)).Judge(rhel, late)
	if text := v.Findings[0].Text; !strings.HasSuffix(text, "; the entry from web1 had it until 2026-03-01T13:00:00Z") {
		t.Error(text)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	s := bent(boot(t, rhel8, usual), func(s *State) {
		for range MaxComponents - len(s.Components) {
			s.Components = append(s.Components, s.Components[0])
		}
	})
	v := only(BootComponents, Enforce).Judge(s, noon)
	if n := len(v.Findings); n != maxFindings+1 || v.Findings[n-1].Text != "and 49 more" || v.Findings[n-1].Mode != Enforce {
		t.Errorf("%+v", v)
	}
}
