// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/bootpolicy"
)

// newAcceptedWorld is one in which spire booted what the baseline has and was judged.
func newAcceptedWorld(t *testing.T, ttl string) *bootWorld {
	t.Helper()
	w := newBootWorld(t, allMonitored)
	w.capture(ttl)
	w.setRole("boot", everyCheckBut())
	w.in(bootAccepted, true)
	w.in(bootAccepted, false)
	return w
}

// A verdict ends with the entry that it rests on, to the second.
func TestBaselineEntryExpires(t *testing.T) {
	w := newAcceptedWorld(t, "1h")
	expires := w.now.Add(time.Hour)
	if v := w.verdict("spire", "boot"); v.Until != expires.Format(time.RFC3339) {
		t.Errorf("verdict until %q, want %s", v.Until, expires)
	}
	w.now = expires.Add(-time.Nanosecond)
	w.in(bootAccepted, false)
	w.now = expires
	w.out(attest.RuleBootPolicy)
	v := w.verdict("spire", "boot")
	if v.Accepted || !v.says(bootpolicy.PCRValues, "the entry from spire had it until "+expires.Format(time.RFC3339)) {
		t.Errorf("verdict %+v", v)
	}
	w.write("baseline/fleet/promote", map[string]any{"host": "spire", "role": "boot", "state_id": v.StateID, "ttl": "2h"})
	w.in(bootAccepted, true)
	longer := w.now.Add(2 * time.Hour).Format(time.RFC3339)
	if v := w.verdict("spire", "boot"); v.Until != longer {
		t.Errorf("verdict until %q, want %s", v.Until, longer)
	}
	// The same state for longer: the verdict says until when.
	w.write("baseline/fleet/promote", map[string]any{"host": "spire", "role": "boot", "state_id": v.StateID})
	w.in(bootAccepted, true)
	if v := w.verdict("spire", "boot"); v.Until != "" {
		t.Errorf("verdict until %q, want for ever", v.Until)
	}
}

// A monitored failure is told again when the verdict that it stands beside ends.
func TestMonitoredVerdictExpires(t *testing.T) {
	w := newBootWorld(t, allMonitored)
	w.capture("1h")
	w.in(bootMonitored, true)
	w.in(bootMonitored, false)
	w.now = w.now.Add(time.Hour)
	w.in(bootMonitored, true)
	want := []string{"pcr-values", "secure-boot-keys", "boot-components"}
	if v := w.verdict("spire", "boot"); !v.Accepted || !slices.Equal(v.WouldRefuse, want) {
		t.Errorf("verdict %+v, want %v", v, want)
	}
}

// Each row changes something that a verdict rests on; it is not used again.
func TestVerdictIsNotReused(t *testing.T) {
	other := strings.Repeat("ab", 32)
	for _, row := range []struct {
		name   string
		change func(*bootWorld)
		want   attest.Rule // "": judged anew, and accepted
	}{
		{name: "list added to the baseline", change: func(w *bootWorld) { w.write("baseline/fleet", map[string]any{"components": other}) }},
		{name: "entry removed", change: func(w *bootWorld) {
			w.write("baseline/fleet", map[string]any{"remove": w.verdict("spire", "boot").StateID})
		}, want: attest.RuleBootPolicy},
		{name: "baseline removed", change: func(w *bootWorld) { w.must(logical.DeleteOperation, "baseline/fleet", nil) }, want: attest.RuleBootPolicy},
		{name: "another baseline named", change: func(w *bootWorld) { w.write("role/boot", map[string]any{"baselines": "none"}) }, want: attest.RuleBootPolicy},
		{name: "a second baseline named", change: func(w *bootWorld) { w.write("role/boot", map[string]any{"baselines": "none,fleet"}) }},
		{name: "check of the role changed", change: func(w *bootWorld) { w.write("role/boot", map[string]any{"secure_boot": "monitor"}) }},
		{name: "PCRs of the role changed", change: func(w *bootWorld) { w.write("role/boot", map[string]any{"pcrs": "0,2,4,7"}) }, want: attest.RuleBootPolicy},
		{name: "bank of the role changed", change: func(w *bootWorld) { w.write("role/boot", map[string]any{"pcr_bank": "sha384"}) }, want: attest.RuleBootPolicy},
		{name: "digests of the host changed", change: func(w *bootWorld) { w.write("host/spire", map[string]any{"pcr_digests": other}) }},
		{name: "another AK", change: func(w *bootWorld) {
			check(w.t, w.spire.NewAK())
			_, _, err := w.try(w.spire, "boot")
			check(w.t, err)
		}},
		{name: "another boot", change: func(w *bootWorld) { w.boot(append(usualBoot(), image(`\EFI\evil.efi`, "evil"))...) }, want: attest.RuleBootPolicy},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newAcceptedWorld(t, "")
			row.change(w)
			if row.want == "" {
				w.in(bootAccepted, true)
				w.in(bootAccepted, false)
				return
			}
			w.out(row.want)
			w.out(row.want)
		})
	}
}

// A host whose record has digests is held to them, whatever the role checks, and
// they are nobody else's.
func TestHostDigests(t *testing.T) {
	w := newBootWorld(t, map[string]any{"baselines": ""})
	w.in(bootNotChecked, false)
	selection := attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 8}}
	digest := w.spire.Digest(selection)
	if digest != w.second.Digest(selection) {
		t.Fatal("the two machines differ")
	}
	w.write("host/spire", map[string]any{"pcr_digests": hex.EncodeToString(digest[:])})
	w.write("host/second", map[string]any{"pcr_digests": strings.Repeat("ab", 32)})
	w.in(bootAccepted, false)
	_, asked, err := w.try(w.second, "boot")
	wantRefusal(t, err, attest.RuleBootPolicy)
	if !asked {
		t.Error("refused without a look")
	}
	w.boot(append(usualBoot(), image(`\EFI\evil.efi`, "evil"))...)
	w.out(attest.RuleBootPolicy)
}

// What one host or role was judged as is nothing to another.
func TestVerdictIsOfOneHostAndRole(t *testing.T) {
	w := newAcceptedWorld(t, "")
	w.setRole("other", map[string]any{"baselines": "others", "pcr_values": "enforce"})
	_, asked, err := w.try(w.spire, "other")
	wantRefusal(t, err, attest.RuleBootPolicy)
	if !asked {
		t.Error("refused without a look")
	}
	if v := w.verdict("spire", "boot"); !v.Accepted {
		t.Errorf("another role changed the verdict to %+v", v)
	}
	w.setRole("other", map[string]any{"baselines": "others", "pcr_values": "monitor"})
	auth, asked, err := w.try(w.spire, "other")
	check(t, err)
	if !asked || auth.Metadata["boot"] != bootMonitored {
		t.Errorf("boot %s, looked at %v", auth.Metadata["boot"], asked)
	}
	w.in(bootAccepted, false)

	// A machine that boots the same is judged for itself, once.
	for _, want := range []bool{true, false} {
		auth, asked, err = w.try(w.second, "boot")
		check(t, err)
		if asked != want || auth.Metadata["boot"] != bootAccepted {
			t.Errorf("boot %s, looked at %v, want %v", auth.Metadata["boot"], asked, want)
		}
	}
}

// What is promoted is exactly what was shown.
func TestPromoteStaleState(t *testing.T) {
	w := newBootWorld(t, allMonitored)
	promotion := map[string]any{"host": "spire", "role": "boot", "state_id": strings.Repeat("0", 64)}
	w.refuses(logical.UpdateOperation, "baseline/fleet/promote", promotion) // no verdict
	w.in(bootMonitored, true)
	promotion["state_id"] = w.verdict("spire", "boot").StateID
	w.boot(append(usualBoot(), image(`\EFI\evil.efi`, "evil"))...)
	w.in(bootMonitored, true)
	before := w.content()
	if text := w.refuses(logical.UpdateOperation, "baseline/fleet/promote", promotion); !strings.Contains(text, "another one now") {
		t.Errorf("operator is told %q", text)
	}
	for _, wrong := range []map[string]any{
		{"host": "second"}, {"host": "nobody"}, {"role": "other"}, {"state_id": ""}, {"ttl": -1}, {"host": ""},
	} {
		data := maps.Clone(promotion)
		data["state_id"] = w.verdict("spire", "boot").StateID
		maps.Copy(data, wrong)
		w.refuses(logical.UpdateOperation, "baseline/fleet/promote", data)
	}
	if !maps.Equal(before, w.content()) {
		t.Error("a refused promotion was written")
	}
	promotion["state_id"] = strings.ToUpper(w.verdict("spire", "boot").StateID)
	w.write("baseline/fleet/promote", promotion)
	w.write("baseline/fleet/promote", promotion)
	entries := w.must(logical.ReadOperation, "baseline/fleet", nil).Data["entries"].([]map[string]any)
	if len(entries) != 1 || entries[0]["state_id"] != w.verdict("spire", "boot").StateID || entries[0]["from"] != "spire" {
		t.Errorf("entries %v", entries)
	}
}

// A verdict is written when it says something new and else not, though time goes on.
func TestVerdictIsWrittenOnChange(t *testing.T) {
	w := newAcceptedWorld(t, "")
	w.boot(append(usualBoot(), image(`\EFI\evil.efi`, "evil"))...)
	w.out(attest.RuleBootPolicy)
	first := w.content()
	w.now = w.now.Add(time.Minute)
	w.out(attest.RuleBootPolicy)
	w.spire.Restart()
	w.out(attest.RuleBootPolicy)
	if !maps.Equal(first, w.content()) {
		t.Error("the same refusal was written again")
	}
	w.boot(append(usualBoot(), image(`\EFI\worse.efi`, "worse"))...)
	w.now = w.now.Add(reportEvery)
	w.out(attest.RuleBootPolicy)
	second := w.content()
	for key := range second {
		if changed := second[key] != first[key]; changed != (key == verdictPrefix+"spire/boot") {
			t.Errorf("%s: changed %v", key, changed)
		}
	}
	if v := w.verdict("spire", "boot"); v.At != w.now.Format(time.RFC3339) || !says(v, "worse.efi") {
		t.Errorf("verdict %+v", v)
	}
	w.spire.Counters.Firmware = 0xabcd
	w.now = w.now.Add(reportEvery)
	w.out(attest.RuleBootPolicy)
	if v := w.verdict("spire", "boot"); v.Firmware != "000000000000abcd" {
		t.Errorf("verdict %+v", v)
	}
}

// The same state under another baseline: as many findings, but others.
func TestVerdictSaysWhatIsWrongNow(t *testing.T) {
	w := newAcceptedWorld(t, "")
	w.setRole("boot", map[string]any{"baselines": "keys", "secure_boot_keys": "enforce", "pcr_values": "off", "secure_boot": "off", "boot_components": "off"})
	state, other := w.verdict("spire", "boot").State, strings.Repeat("ab", 32)
	for _, wrong := range []string{"db", "dbx"} {
		keys := map[string]any{"db": state.Keys["db"], "dbx": state.Keys["dbx"]}
		keys[wrong] = other
		w.write("baseline/keys", keys)
		w.out(attest.RuleBootPolicy)
		if v := w.verdict("spire", "boot"); !says(v, "PCR 7: "+wrong+": digest ") || len(v.Findings) != 1 {
			t.Errorf("%s is wrong, the verdict says %+v", wrong, v.Findings)
		}
	}
}

// Where the digest alone decides, what is known of the same digest stays shown.
func TestDigestAloneForgetsNothing(t *testing.T) {
	w := newBootWorld(t, allMonitored)
	w.capture("")
	full := w.verdict("spire", "boot")
	w.setRole("boot", everyCheckBut("secure_boot", "secure_boot_keys", "boot_components"))
	w.in(bootAccepted, false)
	v := w.verdict("spire", "boot")
	if !v.Accepted || v.StateID != full.StateID || len(v.State.Components) != 2 || len(v.WouldRefuse) > 0 {
		t.Errorf("verdict %+v", v)
	}
	w.boot(replaced(eventShim, image(`\EFI\debian\shimx64.efi`, "shim 15.4"))...)
	w.out(attest.RuleBootPolicy)
	v = w.verdict("spire", "boot")
	if v.StateID == full.StateID || !says(v, "PCR 4: /EFI/debian/shimx64.efi: digest ") {
		t.Errorf("verdict %+v", v)
	}
	// Of another host nothing but the digest is known, until a check reads its log.
	for _, known := range []int{0, 2} {
		_, _, err := w.try(w.second, "boot")
		check(t, err)
		if v := w.verdict("second", "boot"); !v.Accepted || len(v.State.Components) != known {
			t.Errorf("verdict %+v", v)
		}
		w.setRole("boot", map[string]any{"secure_boot": "monitor"})
	}
	w.setRole("boot", map[string]any{"secure_boot": "off"})
	// Now both are accepted, by the digest alone; the verdict is about the one that is.
	w.write("baseline/fleet/promote", map[string]any{"host": "spire", "role": "boot", "state_id": v.StateID})
	w.in(bootAccepted, false)
	w.boot(usualBoot()...)
	w.in(bootAccepted, false)
	if v := w.verdict("spire", "boot"); v.State.PCRDigest != full.State.PCRDigest || !v.Accepted {
		t.Errorf("verdict %+v", v)
	}
}

// A machine whose firmware gives no log, or one that explains nothing, can meet a
// policy over values and be captured for one, and nothing more.
func TestValuesOnly(t *testing.T) {
	sha1Only, err := os.ReadFile("../attest/eventlog/testdata/logs/debian-10.bin")
	check(t, err)
	for name, log := range map[string][]byte{"no log": nil, "log that is none": {1, 2, 3}, "log of SHA-1": sha1Only} {
		t.Run(name, func(t *testing.T) {
			w := newBootWorld(t, map[string]any{"pcr_values": "monitor"})
			w.spire.Events, w.spire.RawLog = nil, log
			w.in(bootMonitored, true)
			v := w.verdict("spire", "boot")
			if v.State.Log || len(v.State.Values) != 9 || !slices.Equal(v.WouldRefuse, []string{"pcr-values"}) {
				t.Errorf("verdict %+v", v)
			}
			w.write("baseline/fleet/promote", map[string]any{"host": "spire", "role": "boot", "state_id": v.StateID})
			w.setRole("boot", map[string]any{"pcr_values": "enforce"})
			w.in(bootAccepted, false)
			check(t, w.spire.Extend(tpm2.TPMAlgSHA256, 4, make([]byte, 32)))
			w.out(attest.RuleBootPolicy)
			if v := w.verdict("spire", "boot"); !says(v, "PCR 4: moved") {
				t.Errorf("verdict %+v", v)
			}
			w.setRole("boot", map[string]any{"pcr_values": "monitor", "secure_boot": "enforce"})
			w.out(attest.RuleEventLog)
		})
	}
}

// Every login in counts that a monitored check would have refused.
func TestWouldRefuseCounts(t *testing.T) {
	w := newBootWorld(t, allMonitored)
	w.boot(replaced(eventSecureBoot, secureBootVariable(globalVariable, "SecureBoot", "\x00"))...)
	for range 3 {
		_, _, err := w.try(w.spire, "boot")
		check(t, err)
	}
	w.setRole("boot", map[string]any{"pcr_values": "enforce"})
	w.out(attest.RuleBootPolicy) // refused, so not monitored
	for _, check := range []bootpolicy.Check{bootpolicy.PCRValues, bootpolicy.SecureBoot, bootpolicy.SecureBootKeys, bootpolicy.BootComponents} {
		if n := w.wouldRefuse(check); n != 3 {
			t.Errorf("%s: %d, want 3", check, n)
		}
	}
}

// Names of components are the host's words: they reach a terminal as plain text.
func TestComponentNamesAreEscaped(t *testing.T) {
	const nasty = "\\EFI\\\x1b[2J\x07\u202e\u009b31m\n: accepted\\x.efi"
	w := newAcceptedWorld(t, "")
	evil := image(nasty, "evil")
	plain := attacker.Event{PCR: 2, Type: 0x80000004, Data: []byte("\x1b]0;owned\x07"), Digests: evil.Digests}
	w.boot(append(usualBoot(), evil, plain)...)
	w.out(attest.RuleBootPolicy)
	v := w.verdict("spire", "boot") // which must be printable
	const want = `/EFI/\x1b\x5b2J\x07\u202e\u009b31m\x0a\x3a accepted/x.efi`
	if !slices.ContainsFunc(v.Findings, func(f finding) bool {
		return f.Component == want && strings.HasPrefix(f.Text, "PCR 4: "+want+": digest ")
	}) {
		t.Errorf("findings %+v", v.Findings)
	}
	for _, control := range []string{"\x1b", "\x07", "\u202e", "\u009b", `\u001b`, `\u0007`} {
		if strings.Contains(w.logged.String(), control) {
			t.Errorf("the log has %q", control)
		}
	}
}

// The mount says how long a log may be.
func TestMaxEventLog(t *testing.T) {
	w := newAcceptedWorld(t, "")
	log, err := w.spire.EventLog()
	check(t, err)
	w.write("config", map[string]any{"max_event_log": len(log) - 1})
	w.in(bootAccepted, false) // what was judged before needs no log
	w.boot(usualBoot()[1:]...)
	log, err = w.spire.EventLog()
	check(t, err)
	w.write("config", map[string]any{"max_event_log": len(log) - 1})
	w.out(attest.RuleSize)
	w.write("config", map[string]any{"max_event_log": len(log)})
	w.out(attest.RuleBootPolicy)
	if v := w.verdict("spire", "boot"); !says(v, "PCR 0: moved") {
		t.Errorf("verdict %s", fmt.Sprint(v.Findings))
	}
}
