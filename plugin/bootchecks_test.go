// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/bootpolicy"
)

// Each row boots something else than was captured and says which checks mind, and
// how; every check is tried in every mode.
func TestChecksAndModes(t *testing.T) {
	const none = "" // of a check: content
	log := attest.RuleEventLog
	for _, row := range []struct {
		name   string
		events []attacker.Event
		noLog  bool
		rule   attest.Rule // boot-policy unless said otherwise
		says   [4]string   // by check, in the order of checks
	}{
		{name: "as captured", events: usualBoot()},
		{name: "Secure Boot off", events: replaced(eventSecureBoot, secureBootVariable(globalVariable, "SecureBoot", "\x00")),
			says: [4]string{"PCR 7: moved: Secure Boot is off, was on", "PCR 7: Secure Boot is off", none, none}},
		{name: "KEK changed", events: replaced(eventKEK, secureBootVariable(globalVariable, "KEK", "another key")),
			says: [4]string{"PCR 7: moved: KEK differs", none, "PCR 7: KEK: digest", none}},
		{name: "db changed", events: replaced(eventDB, secureBootVariable(imageSecurity, "db", "more keys")),
			says: [4]string{"PCR 7: moved: db differs", none, "PCR 7: db: digest", none}},
		{name: "dbx emptied", events: replaced(eventDBX, secureBootVariable(imageSecurity, "dbx", "")),
			says: [4]string{"PCR 7: moved: dbx differs", none, "PCR 7: dbx: digest e3b0c44298fc… is in no live baseline", none}},
		{name: "dbx not measured", events: replaced(eventDBX, secureBootVariable(imageSecurity, "dbz", "")),
			says: [4]string{"PCR 7: moved: dbx differs", none, "PCR 7: dbx was not measured", none}},
		{name: "another shim", events: replaced(eventShim, image(`\EFI\debian\shimx64.efi`, "shim 15.4")),
			says: [4]string{"PCR 4: /EFI/debian/shimx64.efi: digest ", none, none, "PCR 4: /EFI/debian/shimx64.efi: digest "}},
		{name: "one more", events: append(usualBoot(), image(`\EFI\evil.efi`, "evil")),
			says: [4]string{"PCR 4: /EFI/evil.efi: digest ", none, none, "PCR 4: /EFI/evil.efi: digest "}},
		{name: "another command line", events: replaced(eventCommand, attacker.Event{PCR: 8, Type: attacker.EventIPL, Data: []byte("init=/bin/sh")}),
			says: [4]string{"PCR 8: moved", none, none, none}},
		{name: "no event log", events: usualBoot(), noLog: true, rule: log,
			says: [4]string{none, "no event log", "no event log", "no event log"}},
	} {
		for i, check := range []bootpolicy.Check{bootpolicy.PCRValues, bootpolicy.SecureBoot, bootpolicy.SecureBootKeys, bootpolicy.BootComponents} {
			if row.rule == "" {
				row.rule = attest.RuleBootPolicy
			}
			for _, mode := range []bootpolicy.Mode{bootpolicy.Off, bootpolicy.Monitor, bootpolicy.Enforce} {
				t.Run(row.name+"/"+string(check)+"/"+string(mode), func(t *testing.T) {
					w := newBootWorld(t, allMonitored)
					w.capture("")
					w.boot(row.events...)
					if row.noLog {
						w.spire.Events = nil
					}
					w.judged(check, mode, row.says[i], row.rule)
				})
			}
		}
	}
}

// judged has one check judge spire; no words: it has nothing to say.
func (w *bootWorld) judged(check bootpolicy.Check, mode bootpolicy.Mode, words string, rule attest.Rule) {
	w.t.Helper()
	settings := map[string]any{"baselines": "fleet"}
	for name, field := range checkFields {
		settings[field] = "off"
		if name == check {
			settings[field] = string(mode)
		}
	}
	if mode == bootpolicy.Off {
		settings["baselines"] = ""
	}
	w.setRole("boot", settings)
	before, counted := w.content(), w.wouldRefuse(check)
	switch {
	case mode == bootpolicy.Off:
		w.in(bootNotChecked, false)
		if verdict := verdictPrefix + "spire/boot"; w.content()[verdict] != before[verdict] {
			w.t.Error("a verdict about what nobody checks")
		}
		return
	case words == "":
		// Values that are in a baseline are known by the quote's digest alone.
		asked := check != bootpolicy.PCRValues
		w.in(map[bootpolicy.Mode]string{bootpolicy.Monitor: bootMonitored, bootpolicy.Enforce: bootAccepted}[mode], asked)
	case mode == bootpolicy.Monitor:
		w.in(bootMonitored, true)
		counted++
	default:
		w.out(rule)
	}
	v := w.verdict("spire", "boot")
	if got := w.wouldRefuse(check); got != counted {
		w.t.Errorf("would_refuse counts %d, want %d", got, counted)
	}
	if v.Accepted != (words == "" || mode == bootpolicy.Monitor) || !v.says(check, words) && words != "" {
		w.t.Errorf("verdict %+v does not say %q", v, words)
	}
	if words == "" && len(v.Findings)+len(v.WouldRefuse) > 0 {
		w.t.Errorf("verdict %+v about what is as captured", v)
	}
}

// everyCheckBut has all checks enforced but those.
func everyCheckBut(off ...string) map[string]any {
	settings := map[string]any{
		"pcr_values": "enforce", "secure_boot": "enforce", "secure_boot_keys": "enforce", "boot_components": "enforce",
	}
	for _, name := range off {
		settings[name] = "off"
	}
	return settings
}

// Each row is a machine, the usual one where it says nothing else, that lies in
// what it sends. Where the lie is no lie to the replay it is for the checks to find.
func TestLogLies(t *testing.T) {
	sha1Only, err := os.ReadFile("../attest/eventlog/testdata/logs/debian-10.bin")
	check(t, err)
	// logged is what is logged where the truth was measured before.
	logged := func(bend func([]attacker.Event) []attacker.Event) func(*bootWorld) {
		return func(w *bootWorld) { w.spire.Events = bend(w.spire.Events) }
	}
	relabelled := func(i int, kind uint32, data string) func(*bootWorld) {
		return logged(func(e []attacker.Event) []attacker.Event {
			e[i].Digests = digestsOf(e[i])
			e[i].Type, e[i].Data = kind, []byte(data)
			return e
		})
	}
	evil := image(`\EFI\debian\grubx64.efi`, "evil")
	booted := func(events ...attacker.Event) func(*bootWorld) { return func(w *bootWorld) { w.boot(events...) } }
	for _, row := range []struct {
		name string
		boot func(*bootWorld)
		lie  func(*attacker.Login)
		off  string // a check that would be refused for its own reasons
		rule attest.Rule
		says string // in the verdict, where there is one
	}{
		{name: "truncated", lie: func(l *attacker.Login) { l.Log = func(b []byte) []byte { return b[:len(b)-1] } }, rule: attest.RuleEventLog},
		{name: "cut at an event", boot: logged(func(e []attacker.Event) []attacker.Event { return e[:eventGRUB] }), rule: attest.RuleEventLog},
		{name: "no events", lie: func(l *attacker.Login) {
			l.Log = func(b []byte) []byte { return b[:bytes.Index(b, []byte("1\x00.\x00"))-110] }
		}, rule: attest.RuleEventLog},
		{name: "shim left out", boot: logged(func(e []attacker.Event) []attacker.Event { return append(e[:eventShim:eventShim], e[eventGRUB:]...) }), rule: attest.RuleEventLog},
		{name: "shim called not measured", boot: logged(func(e []attacker.Event) []attacker.Event {
			e[eventShim].Type = attacker.EventNoAction
			return e
		}), rule: attest.RuleEventLog},
		{name: "SHA-1 only", lie: func(l *attacker.Login) { l.Log = func([]byte) []byte { return sha1Only } }, rule: attest.RuleEventLog},
		{name: "right in SHA-1 only", boot: logged(func(e []attacker.Event) []attacker.Event {
			e[eventGRUB].Digests = digestsOf(e[eventGRUB])
			e[eventGRUB].Digests[tpm2.TPMAlgSHA256] = make([]byte, 32)
			return e
		}), rule: attest.RuleEventLog},
		{name: "not the quoted one", lie: func(l *attacker.Login) {
			l.Message = func(m *attest.LoginRequest) {
				if m.EventLog != nil {
					m.EventLog = append(bytes.Clone(m.EventLog), 0)
				}
			}
		}, rule: attest.RuleEventLog},
		{name: "none quoted and one sent", lie: func(l *attacker.Login) {
			l.Binding = func(b *attest.Binding) { b.EventLogHash = [32]byte{} }
			l.Message = func(m *attest.LoginRequest) { m.EventLogHash = make([]byte, 32) }
		}, rule: attest.RuleEventLog},
		{name: "values of another boot", lie: func(l *attacker.Login) {
			l.Message = func(m *attest.LoginRequest) {
				if m.PCRs != nil {
					m.PCRs[4] = make([]byte, 32)
				}
			}
		}, rule: attest.RulePCRDigest},
		{name: "log withheld", lie: func(l *attacker.Login) { l.Message = func(m *attest.LoginRequest) { m.EventLog = nil } }, rule: attest.RuleEventLogNeeded},
		{name: "values withheld", lie: func(l *attacker.Login) { l.Measured = false }, rule: attest.RuleEventLogNeeded},
		{name: "PCR 2 with a value and no events", boot: func(w *bootWorld) {
			check(w.t, w.spire.Extend(tpm2.TPMAlgSHA256, 2, make([]byte, 32)))
		}, rule: attest.RuleEventLog},
		{name: "PCR 3 without events", boot: logged(func(e []attacker.Event) []attacker.Event {
			return append(e[:9:9], e[10:]...) // its separator
		}), rule: attest.RuleEventLog},

		{name: "evil called a separator", boot: booted(append(usualBoot(), relabel(evil, attacker.EventSeparator, "\x00\x00\x00\x00"))...),
			rule: attest.RuleBootPolicy, says: "PCR 4: event 18: digest "},
		{name: "evil called an action", boot: booted(append(usualBoot(), relabel(evil, 0x80000007, "Calling EFI Application from Boot Option"))...),
			rule: attest.RuleBootPolicy, says: "PCR 4: Calling EFI Application from Boot Option: digest "},
		{name: "evil called shim", boot: booted(replaced(eventShim, image(`\EFI\debian\shimx64.efi`, "evil"))...),
			rule: attest.RuleBootPolicy, says: "PCR 4: /EFI/debian/shimx64.efi: digest "},
		{name: "Secure Boot off, said to be on", boot: func(w *bootWorld) {
			off := secureBootVariable(globalVariable, "SecureBoot", "\x00")
			w.boot(replaced(eventSecureBoot, relabel(off, off.Type, string(secureBootVariable(globalVariable, "SecureBoot", "\x01").Data)))...)
		}, off: "pcr_values", rule: attest.RuleEventLog, says: "PCR 7: Secure Boot is unknown: event 2 is not measured by its data"},
		{name: "dbx measured, other data shown", boot: relabelled(eventDBX, attacker.EventVariableConfig, "nothing"),
			off: "pcr_values", rule: attest.RuleEventLog, says: "Secure Boot is unknown: event 6"},
		{name: "Secure Boot measured again after the separator", boot: func(w *bootWorld) {
			off := replaced(eventSecureBoot, secureBootVariable(globalVariable, "SecureBoot", "\x00"))
			w.boot(append(off, secureBootVariable(globalVariable, "SecureBoot", "\x01"))...)
		}, off: "pcr_values", rule: attest.RuleBootPolicy, says: "PCR 7: Secure Boot is off"},
		{name: "nothing booted", boot: booted(append(usualBoot()[:eventShim:eventShim], usualBoot()[eventCommand])...),
			off: "pcr_values", rule: attest.RuleEventLog, says: "PCR 4: nothing was measured"},
		{name: "PCR 8 with a value and no events", boot: func(w *bootWorld) {
			check(w.t, w.spire.Extend(tpm2.TPMAlgSHA256, 8, make([]byte, 32)))
		}, rule: attest.RuleBootPolicy, says: "PCR 8: moved"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newBootWorld(t, allMonitored)
			w.capture("")
			w.setRole("boot", everyCheckBut(row.off))
			before := w.content()
			if row.boot != nil {
				row.boot(w)
			}
			var lies []func(*attacker.Login)
			if row.lie != nil {
				lies = append(lies, row.lie)
			}
			w.out(row.rule, lies...)
			if row.says == "" {
				if !maps.Equal(before, w.content()) {
					t.Error("what proves nothing was written down")
				}
				return
			}
			if v := w.verdict("spire", "boot"); v.Accepted || !says(v, row.says) {
				t.Errorf("verdict %+v does not say %q", v, row.says)
			}
		})
	}
}

func says(v *shown, words string) bool {
	for _, f := range v.Findings {
		if strings.Contains(f.Text, words) {
			return true
		}
	}
	return false
}

// digestsOf are the digests that were measured for an event, to keep when it is
// relabelled.
func digestsOf(e attacker.Event) map[tpm2.TPMAlgID][]byte {
	digests := map[tpm2.TPMAlgID][]byte{}
	for _, bank := range []tpm2.TPMAlgID{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384} {
		digests[bank] = e.Digests[bank]
		if digests[bank] == nil {
			digests[bank] = hashOf(bank, e.Data)
		}
	}
	return digests
}

// relabel is an event as measured with another type and other data beside it.
func relabel(e attacker.Event, kind uint32, data string) attacker.Event {
	e.Digests = digestsOf(e)
	e.Type, e.Data = kind, []byte(data)
	return e
}
