// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	goattest "github.com/google/go-attestation/attest"
)

var update = flag.Bool("update", false, "write testdata/facts.json anew")

// facts are what a log says when its values are quoted.
type facts struct {
	PCRs       map[int]string  `json:"pcrs"`
	SecureBoot SecureBootState `json:"secure_boot"`
	Reason     string          `json:"reason,omitempty"`
	Keys       []string        `json:"keys"`
	Components []string        `json:"components"`
}

func factsOf(t *testing.T, raw []byte, bank string) facts {
	t.Helper()
	p := prove(t, raw, bank)
	f := facts{PCRs: map[int]string{}}
	for _, pcr := range allEight {
		value, _ := p.log.Replay(pcr)
		f.PCRs[pcr] = hex.EncodeToString(value)
	}
	boot := p.SecureBoot()
	f.SecureBoot, f.Reason = boot.State, boot.Reason
	for _, name := range []string{PK, KEK, DB, DBX} {
		if sum, ok := boot.Keys[name]; ok {
			f.Keys = append(f.Keys, name+" "+hex.EncodeToString(sum[:]))
		}
	}
	components, more := p.Components(1000)
	if more {
		t.Error("more than 1000 components")
	}
	for _, c := range components {
		f.Components = append(f.Components, string(rune('0'+c.PCR))+" "+hex.EncodeToString(c.Digest)+" "+c.Name)
	}
	return f
}

// TestFacts compares what each real log says with testdata/facts.json.
func TestFacts(t *testing.T) {
	got := map[string]facts{}
	for _, name := range logNames(t) {
		raw := readLog(t, name)
		for _, bank := range []string{"sha256", "sha384"} {
			if _, err := Parse(raw, bank); err == nil {
				got[name+"/"+bank] = factsOf(t, raw, bank)
			}
		}
	}
	text, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile("testdata/facts.json", text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/facts.json")
	if err != nil || !bytes.Equal(text, want) {
		t.Fatalf("facts differ (%v); go test -update and look at the difference\n%s", err, text)
	}
}

// TestSecureBootAgrees compares with another implementation where that one has an
// answer; it has none for logs that its X.509 parser or its type checks reject.
func TestSecureBootAgrees(t *testing.T) {
	compared := 0
	for _, name := range logNames(t) {
		raw := readLog(t, name)
		l, err := Parse(raw, "sha256")
		if err != nil {
			continue
		}
		other, err := goattest.ParseEventLog(raw)
		if err != nil {
			t.Fatal(err)
		}
		var pcrs []goattest.PCR
		for i, value := range quoted(l, allEight) {
			pcrs = append(pcrs, goattest.PCR{Index: i, Digest: value, DigestAlg: crypto.SHA256})
		}
		events, err := other.Verify(pcrs)
		if err != nil {
			t.Fatal(err)
		}
		state, err := goattest.ParseSecurebootState(events)
		if err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		compared++
		if got := prove(t, raw, "sha256").SecureBoot(); (got.State == SecureBootOn) != state.Enabled || got.State == SecureBootUnknown {
			t.Errorf("%s: %+v here, %v there", name, got, state.Enabled)
		}
	}
	if compared < 8 {
		t.Errorf("%d logs compared", compared)
	}
}

// TestSecureBoot bends PCR 7 in ways that the TPM would have measured: the values
// are those of the bent log.
func TestSecureBoot(t *testing.T) {
	variable := func(guid, name, content string) edit {
		return measured(7, 0x80000001, variableData(guid, name, content))
	}
	// In rhel8: 2 SecureBoot, 3 PK, 4 KEK, 5 db, 6 dbx, 7 separator.
	before := func(at int, e edit) func(*edited) {
		return func(l *edited) { l.events = append(l.events[:at:at], append([]edit{e}, l.events[at:]...)...) }
	}
	for _, tt := range []struct {
		name   string
		bend   func(*edited)
		state  SecureBootState
		reason string
		keys   int
	}{
		{"as it is", func(*edited) {}, SecureBootOn, "", 4},
		{"off", func(l *edited) { l.events[2] = variable(globalVariable, "SecureBoot", "\x00") }, SecureBootOff, "", 4},
		{"empty", func(l *edited) { l.events[2] = variable(globalVariable, "SecureBoot", "") }, SecureBootOff, "", 4},
		{"absent", func(l *edited) { l.events = append(l.events[:2:2], l.events[3:]...) }, SecureBootOff, "", 4},
		{"2", func(l *edited) { l.events[2] = variable(globalVariable, "SecureBoot", "\x02") }, SecureBootUnknown, "neither 0 nor 1", 0},
		{"two bytes", func(l *edited) { l.events[2] = variable(globalVariable, "SecureBoot", "\x01\x00") }, SecureBootUnknown, "neither 0 nor 1", 0},
		{"of another GUID", func(l *edited) { l.events[2] = variable(imageSecurityDatabase, "SecureBoot", "\x01") }, SecureBootOff, "", 4},
		{"name with its zero", func(l *edited) { l.events[2] = variable(globalVariable, "SecureBoot\x00", "\x01") }, SecureBootOff, "", 4},
		{"key absent", func(l *edited) { l.events = append(l.events[:6:6], l.events[7:]...) }, SecureBootOn, "", 3},
		{"twice, the same", before(5, variable(globalVariable, "SecureBoot", "\x01")), SecureBootOn, "", 4},
		{"twice, not the same", before(5, variable(globalVariable, "SecureBoot", "\x00")), SecureBootUnknown, "event 6: SecureBoot was measured before", 0},
		{"db twice", before(3, variable(imageSecurityDatabase, "db", "")), SecureBootUnknown, "db was measured before", 0},
		{"an authority before the separator", before(7, variable(imageSecurityDatabase, "db", "one signature")), SecureBootUnknown, "db was measured before", 0},
		{"config of another time after the separator", before(8, variable(globalVariable, "SecureBoot", "\x00")), SecureBootOn, "", 4},
		{"another variable", before(3, variable(globalVariable, "SetupMode", "\x00")), SecureBootOn, "", 4},
		{"DMA protection disabled", before(3, measured(7, 0x80000007, dmaDisabled)), SecureBootOn, "", 4},
		{"debugger", before(3, measured(7, 0x80000007, debugMode)), SecureBootUnknown, "event 4: a firmware debugger", 0},
		{"measured text", before(3, measured(7, 0x80000007, "hello")), SecureBootUnknown, "event 4: its data is not a variable", 0},
		{"variable cut", before(3, measured(7, 0x80000001, variableData(globalVariable, "PK", "x")[:36])), SecureBootUnknown, "not a variable", 0},
		{"variable with more", before(3, measured(7, 0x80000001, variableData(globalVariable, "PK", "x")+"y")), SecureBootUnknown, "not a variable", 0},
		{"name length lies", before(3, measured(7, 0x80000001, globalVariable+"\x01\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00aa")), SecureBootUnknown, "not a variable", 0},
		{"no separator", func(l *edited) { l.events = append(l.events[:7:7], without7(l.events[8:])...) }, SecureBootUnknown, "no separator", 0},
		{"separator that says error", func(l *edited) { l.events[7].remeasure([]byte{1, 0, 0, 0}) }, SecureBootUnknown, "event 8: its data is not a variable", 0},
		{"separator of ones", func(l *edited) { l.events[7].remeasure([]byte(separatorOnes)) }, SecureBootOn, "", 4},
		{"separator first", before(2, measured(7, 4, separatorZeros)), SecureBootOff, "", 0},
		{"PCR 7 without events", func(l *edited) { l.without(7) }, SecureBootUnknown, "no separator", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := takeApart(t, readLog(t, rhel8))
			tt.bend(l)
			for _, bank := range []string{"sha256", "sha384"} {
				wantSecureBoot(t, prove(t, l.bytes(), bank).SecureBoot(), tt.state, tt.reason, tt.keys)
			}
		})
	}
}

func without7(events []edit) []edit {
	l := edited{events: events}
	l.without(7)
	return l.events
}

func wantSecureBoot(t *testing.T, got SecureBoot, state SecureBootState, reason string, keys int) {
	t.Helper()
	if got.State != state || len(got.Keys) != keys || !bytes.Contains([]byte(got.Reason), []byte(reason)) {
		t.Errorf("%s (%s) with %d keys; want %s (%s) with %d", got.State, got.Reason, len(got.Keys), state, reason, keys)
	}
}

// TestRewrittenLog does to a log what root can do without the TPM noticing: other
// types, other data, other places. Nothing of it may gain anything.
func TestRewrittenLog(t *testing.T) {
	honest := prove(t, readLog(t, ubuntu2404), "sha256")
	if boot := honest.SecureBoot(); boot.State != SecureBootOff {
		t.Fatal(boot)
	}
	rewrite := func(bend func(*edited)) *Proven {
		l := takeApart(t, readLog(t, ubuntu2404))
		bend(l)
		p := prove(t, l.bytes(), "sha256")
		for i, v := range quoted(p.log, allEight) {
			if !bytes.Equal(v, quoted(honest.log, allEight)[i]) {
				t.Fatalf("PCR %d is another", i)
			}
		}
		return p
	}
	on := []byte(variableData(globalVariable, "SecureBoot", "\x01"))
	for name, bend := range map[string]func(*edited){
		"claim on":             func(l *edited) { l.events[2].data = on },
		"claim a separator":    func(l *edited) { l.events[2].kind, l.events[2].data = 4, []byte(separatorZeros) },
		"claim nothing":        func(l *edited) { l.events[2].data = nil },
		"other dbx":            func(l *edited) { l.events[6].data = []byte(variableData(imageSecurityDatabase, "dbx", "")) },
		"separator relabelled": func(l *edited) { l.events[7].data = []byte("late") },
		"action for variable":  func(l *edited) { l.events[2].kind, l.events[2].data = 0x80000007, []byte(dmaDisabled) },
	} {
		boot := rewrite(bend).SecureBoot()
		if name == "separator relabelled" {
			wantSecureBoot(t, boot, SecureBootOff, "", 4) // the digest is what marks it
		} else {
			wantSecureBoot(t, boot, SecureBootUnknown, "is not measured by its data", 0)
		}
	}
	retyped := rewrite(func(l *edited) {
		for i := range l.events {
			l.events[i].kind = 0xdeadbeef
		}
	})
	wantSecureBoot(t, retyped.SecureBoot(), SecureBootOff, "", 4)
	hidden := rewrite(func(l *edited) {
		for i := range l.events {
			if l.events[i].kind == 0x80000003 {
				l.events[i].kind, l.events[i].data = 4, []byte(separatorZeros)
			}
		}
	})
	want, _ := honest.Components(64)
	got, _ := hidden.Components(64)
	if len(got) != len(want) || len(got) != 2 {
		t.Fatalf("%d components, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Digest, want[i].Digest) || want[i].Name == "" || got[i].Name != "" {
			t.Errorf("component %d: %+v, honest %+v", i, got[i], want[i])
		}
	}
}
