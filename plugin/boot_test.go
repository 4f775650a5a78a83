// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-tpm/tpm2"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/bootpolicy"
)

// bootWorld is a mount with a role that judges what was booted, and two hosts of
// one vendor that boot what a test says.
type bootWorld struct {
	*mount
	now           time.Time
	spire, second *attacker.TPM
	blank, blank2 *attacker.TPM // as they leave the factory
}

// allMonitored are settings of a role.
var allMonitored = map[string]any{
	"pcr_values": "monitor", "secure_boot": "monitor", "secure_boot_keys": "monitor", "boot_components": "monitor",
}

func newBootWorld(t *testing.T, settings map[string]any) *bootWorld {
	t.Helper()
	vendor, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	w := &bootWorld{mount: newMount(t, storages(t)["transactional"], "mount-1"), now: time.Now().UTC().Truncate(time.Second)}
	w.b.wallClock = func() time.Time { return w.now }
	w.write("config", map[string]any{"virtual_roots": vendor.PEM(), "audiences": audience})
	w.setRole("boot", settings)
	for name, tpm := range map[string]**attacker.TPM{"spire": &w.blank, "second": &w.blank2} {
		*tpm, err = attacker.NewTPM(vendor, attacker.P256)
		check(t, err)
		id, err := (*tpm).ID()
		check(t, err)
		w.write("host/"+name, map[string]any{"tpm_ids": string(id), "roles": "boot,other"})
	}
	w.spire, w.second = w.blank.Clone(), w.blank2.Clone()
	w.boot(usualBoot()...)
	check(t, w.second.Measure(usualBoot()...))
	return w
}

func (w *bootWorld) setRole(name string, settings map[string]any) {
	w.t.Helper()
	role := map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0,1,2,3,4,5,6,7,8", "baselines": "fleet"}
	maps.Copy(role, settings)
	w.write("role/"+name, role)
}

// boot cuts the power of spire and boots it.
func (w *bootWorld) boot(events ...attacker.Event) {
	w.t.Helper()
	counters := w.spire.Counters
	w.spire = w.blank.Clone()
	w.spire.Counters = counters
	w.spire.Reset()
	check(w.t, w.spire.Measure(events...))
}

// try logs in as an honest host does: values and log only where they are wanted.
// Its lies come with each try.
func (w *bootWorld) try(tpm *attacker.TPM, role string, lies ...func(*attacker.Login)) (auth *logical.Auth, asked bool, err error) {
	w.t.Helper()
	attempt := func(measured bool) (*logical.Auth, error) {
		request, err := tpm.Request(role)
		check(w.t, err)
		c, err := w.challenge(*request)
		check(w.t, err)
		l := attacker.Login{Role: role, Audience: audience, Measured: measured}
		for _, lie := range lies {
			lie(&l)
		}
		m, err := tpm.Answer(&c, l)
		check(w.t, err)
		return w.login(*m)
	}
	if auth, err = attempt(false); ruleOf(err) != attest.RuleEventLogNeeded {
		return auth, false, err
	}
	auth, err = attempt(true)
	return auth, true, err
}

// in is a login of spire that must succeed, with this word about the boot, and
// with or without values and log.
func (w *bootWorld) in(boot string, asked bool) {
	w.t.Helper()
	auth, gotAsked, err := w.try(w.spire, "boot")
	check(w.t, err)
	if auth.Metadata["boot"] != boot || gotAsked != asked {
		w.t.Errorf("boot %s, values and log wanted: %v; want %s, %v", auth.Metadata["boot"], gotAsked, boot, asked)
	}
}

// out is a login of spire that must be refused after values and log were sent.
func (w *bootWorld) out(want attest.Rule, lies ...func(*attacker.Login)) {
	w.t.Helper()
	_, asked, err := w.try(w.spire, "boot", lies...)
	wantRefusal(w.t, err, want)
	if !asked {
		w.t.Error("values and log were not wanted")
	}
}

// capture takes what spire boots over into the baseline.
func (w *bootWorld) capture(ttl string) {
	w.t.Helper()
	w.setRole("boot", allMonitored)
	_, _, err := w.try(w.spire, "boot")
	check(w.t, err)
	w.write("baseline/fleet/promote", map[string]any{
		"host": "spire", "role": "boot", "state_id": w.verdict("spire", "boot").StateID, "ttl": ttl,
	})
}

// shown is what verdict/:host says about one role.
type shown struct {
	At          string           `json:"at"`
	Accepted    bool             `json:"accepted"`
	Until       string           `json:"until"`
	WouldRefuse []string         `json:"would_refuse"`
	Findings    []finding        `json:"findings"`
	State       bootpolicy.State `json:"state"`
	StateID     string           `json:"state_id"`
	Firmware    string           `json:"firmware"`
}

type finding = bootpolicy.Finding

func (m *mount) verdict(host, role string) *shown {
	m.t.Helper()
	text, err := json.Marshal(m.must(logical.ReadOperation, "verdict/"+host, nil).Data)
	check(m.t, err)
	// The one sign beyond ASCII is ours: digests are cut short with it.
	if i := strings.IndexFunc(string(text), func(r rune) bool { return (r < ' ' || r > '~') && r != '…' }); i >= 0 {
		m.t.Errorf("unprintable in verdict: %q", text[i:min(i+20, len(text))])
	}
	all := struct {
		Roles map[string]*shown `json:"roles"`
	}{}
	check(m.t, json.Unmarshal(text, &all))
	if all.Roles[role] == nil {
		m.t.Fatalf("no verdict about %s and %s: %s", host, role, text)
	}
	return all.Roles[role]
}

// says reports whether a finding of the check has these words.
func (v *shown) says(check bootpolicy.Check, words string) bool {
	return slices.ContainsFunc(v.Findings, func(f finding) bool { return f.Check == check && strings.Contains(f.Text, words) })
}

// wouldRefuse is what the statistics count for a check of the role boot.
func (m *mount) wouldRefuse(check bootpolicy.Check) uint64 {
	m.t.Helper()
	return m.must(logical.ReadOperation, "statistics", nil).Data["would_refuse"].(map[string]uint64)["boot/"+string(check)]
}

func ruleOf(err error) attest.Rule {
	var coded logical.HTTPCodedError
	if !errors.As(err, &coded) {
		return ""
	}
	return attest.Rule(strings.TrimPrefix(coded.Error(), attest.RefusalPrefix))
}

// GUIDs of UEFI's variables, as they lie in memory.
const (
	globalVariable = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"
	imageSecurity  = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"
)

// usualBoot is a boot with Secure Boot, shim and GRUB.
func usualBoot() []attacker.Event {
	events := []attacker.Event{
		{PCR: 0, Type: attacker.EventSCRTMVersion, Data: []byte("1\x00.\x000\x00\x00\x00")},
		secureBootVariable(globalVariable, "SecureBoot", "\x01"),
		secureBootVariable(globalVariable, "PK", "the platform's key"),
		secureBootVariable(globalVariable, "KEK", "a vendor's key"),
		secureBootVariable(imageSecurity, "db", "a vendor's certificate"),
		secureBootVariable(imageSecurity, "dbx", "a revoked boot loader"),
	}
	for pcr := range 8 {
		events = append(events, attacker.Event{PCR: pcr, Type: attacker.EventSeparator, Data: make([]byte, 4)})
	}
	return append(events,
		image(`\EFI\debian\shimx64.efi`, "shim 15.8"),
		image(`\EFI\debian\grubx64.efi`, "grub 2.12"),
		attacker.Event{PCR: 8, Type: attacker.EventIPL, Data: []byte("kernel_cmdline: quiet")},
	)
}

func secureBootVariable(guid, name, content string) attacker.Event {
	le := binary.LittleEndian
	data := le.AppendUint64([]byte(guid), uint64(len(name)))
	data = le.AppendUint64(data, uint64(len(content)))
	data = append(data, utf16Bytes(name)...)
	return attacker.Event{PCR: 7, Type: attacker.EventVariableConfig, Data: append(data, content...)}
}

// image is a UEFI_IMAGE_LOAD_EVENT: what is measured is the image, not the data.
func image(path, content string) attacker.Event {
	le := binary.LittleEndian
	name := append(utf16Bytes(path), 0, 0)
	node := append(le.AppendUint16([]byte{4, 4}, uint16(len(name)+4)), name...)
	node = append(node, 0x7f, 0xff, 4, 0)
	data := append(make([]byte, 24), le.AppendUint64(nil, uint64(len(node)))...)
	e := attacker.Event{PCR: 4, Type: attacker.EventBootServices, Data: append(data, node...), Digests: map[tpm2.TPMAlgID][]byte{}}
	for _, bank := range []tpm2.TPMAlgID{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384} {
		e.Digests[bank] = hashOf(bank, []byte(content))
	}
	return e
}

func hashOf(bank tpm2.TPMAlgID, data []byte) []byte {
	hash, err := bank.Hash()
	if err != nil {
		panic(err)
	}
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}

func utf16Bytes(text string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// Where the events of usualBoot stand.
const (
	eventSecureBoot = 1
	eventKEK        = 3
	eventDB         = 4
	eventDBX        = 5
	eventShim       = 14
	eventGRUB       = 15
	eventCommand    = 16
)

// replaced is the usual boot with another event in one place.
func replaced(i int, e attacker.Event) []attacker.Event {
	events := usualBoot()
	events[i] = e
	return events
}

// What a host does not hear its operator can read: why it was refused last, by
// whatever rule, until it gets in.
func TestLastRefusal(t *testing.T) {
	w := newPlainWorld(t)
	w.in(w.spire, "keylime")
	read := func() map[string]any {
		resp := w.must(logical.ReadOperation, "verdict/spire", nil)
		if resp == nil {
			return nil
		}
		return resp.Data["last_refusal"].(map[string]any)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("refused nothing, reads %v", got)
	}
	w.write("host/spire/disable", nil)
	w.out(w.spire, "keylime", attest.RuleHostDisabled)
	if got := read(); got["rule"] != "host-disabled" || !strings.Contains(got["detail"].(string), "spire is disabled") {
		t.Errorf("reads %v", got)
	}
	w.write("host/spire/enable", nil)
	w.in(w.spire, "keylime")
	if got := read(); len(got) != 0 {
		t.Errorf("got in, reads %v", got)
	}
}
