// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
	prover "funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// recorded is the event log of a real machine and what others found in it.
type recorded struct {
	name string
	raw  []byte

	PCRs       map[string]string `json:"pcrs"`
	SecureBoot string            `json:"secure_boot"`
	Components []string          `json:"components"` // "PCR digest name"
}

// recordedLogs are all that have SHA-256 digests.
func recordedLogs(t *testing.T) []*recorded {
	t.Helper()
	const testdata = "../attest/eventlog/testdata"
	text, err := os.ReadFile(filepath.Join(testdata, "facts.json"))
	check(t, err)
	facts := map[string]*recorded{}
	check(t, json.Unmarshal(text, &facts))
	paths, err := filepath.Glob(filepath.Join(testdata, "logs", "*.bin"))
	check(t, err)
	var logs []*recorded
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		check(t, err)
		if _, err := eventlog.Parse(raw, "sha256"); err != nil {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(path), ".bin")
		r := facts[name+"/sha256"]
		if r == nil {
			t.Fatalf("no facts about %s", name)
		}
		r.name, r.raw = name, raw
		logs = append(logs, r)
	}
	if len(logs) != 13 {
		t.Fatalf("%d logs with SHA-256, want 13", len(logs))
	}
	return logs
}

// machineRoom is a mount that knows one machine with a real TPM.
type machineRoom struct {
	*mount
	tpm *tpmsim.TPM
	dir string // of the machine
}

// TestRealLogs has a real TPM measure what real machines measured, has an operator
// take that over from monitor to enforce, and then boots another machine's
// software.
func TestRealLogs(t *testing.T) {
	logs := recordedLogs(t)
	for i, log := range logs {
		other := logs[(i+1)%len(logs)]
		t.Run(log.name, func(t *testing.T) {
			m := &machineRoom{mount: newMount(t, storages(t)["transactional"], "mount-1"), tpm: tpmsim.Device(t, 0), dir: t.TempDir()}
			m.write("config", map[string]any{"virtual_roots": string(tpmsim.TestCA(t).PEM()), "audiences": audience})
			m.write("role/boot", map[string]any{
				"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0,1,2,3,4,5,6,7,8,9", "baselines": "fleet",
				"pcr_values": "monitor", "secure_boot": "monitor", "secure_boot_keys": "monitor", "boot_components": "monitor",
			})
			m.monitorAndPromote(log)
			m.enforce(log)
			m.bootOther(log, other)
		})
	}
}

// boot measures a log and opens the machine.
func (m *machineRoom) boot(log *recorded) *prover.Prover {
	m.t.Helper()
	check(m.t, m.tpm.Replay(log.raw))
	path := filepath.Join(m.dir, "event-log")
	check(m.t, os.WriteFile(path, log.raw, 0o600))
	p, err := prover.Open(m.t.Context(), prover.Config{Device: m.tpm.Device(), EventLog: path, StateDir: m.dir})
	check(m.t, err)
	return p
}

// try logs in as a host does, with values and log only where they are wanted.
func (m *machineRoom) try(p *prover.Prover) (auth *logical.Auth, asked bool, err error) {
	m.t.Helper()
	attempt := func(measurements bool) (*logical.Auth, error) {
		request, err := p.Request(m.t.Context(), "boot")
		check(m.t, err)
		c, err := m.challenge(*request)
		check(m.t, err)
		login, err := p.Login(m.t.Context(), prover.Claim{Role: "boot", Audience: audience, Measurements: measurements}, &c)
		check(m.t, err)
		return m.login(*login)
	}
	if auth, err = attempt(false); ruleOf(err) != attest.RuleEventLogNeeded {
		return auth, false, err
	}
	auth, err = attempt(true)
	return auth, true, err
}

// in is a login that must succeed, with this word about the boot, and with or
// without values and log.
func (m *machineRoom) in(p *prover.Prover, boot string, asked bool) {
	m.t.Helper()
	auth, gotAsked, err := m.try(p)
	check(m.t, err)
	if auth.Metadata["boot"] != boot || gotAsked != asked {
		m.t.Errorf("boot %s, values and log wanted: %v; want %s, %v", auth.Metadata["boot"], gotAsked, boot, asked)
	}
}

// monitorAndPromote lets the machine in while nothing says what it may boot, and
// takes over what the verdict shows.
func (m *machineRoom) monitorAndPromote(log *recorded) {
	m.t.Helper()
	p := m.boot(log)
	defer func() { check(m.t, p.Close()) }()
	_, err := p.Request(m.t.Context(), "boot")
	check(m.t, err)
	m.write("host/spire", map[string]any{"tpm_ids": string(p.TPMID()), "roles": "boot"})
	m.in(p, bootMonitored, true)
	v := m.verdict("spire", "boot")
	m.compare(v, log)
	want := []string{"pcr-values", "secure-boot", "secure-boot-keys", "boot-components"}
	if log.SecureBoot == "on" {
		want = slices.Delete(want, 1, 2)
	}
	if !v.Accepted || !slices.Equal(v.WouldRefuse, want) {
		m.t.Errorf("accepted %v, would refuse %v, want %v", v.Accepted, v.WouldRefuse, want)
	}
	promotion := map[string]any{"host": "spire", "role": "boot", "state_id": strings.Repeat("0", 64)}
	m.refuses(logical.UpdateOperation, "baseline/fleet/promote", promotion)
	promotion["state_id"] = v.StateID
	m.write("baseline/fleet/promote", promotion)
}

// compare holds what an operator is shown against the facts.
func (m *machineRoom) compare(v *shown, log *recorded) {
	m.t.Helper()
	if string(v.State.SecureBoot) != log.SecureBoot || !v.State.Log || len(v.State.Components) != len(log.Components) {
		m.t.Errorf("state %+v, want Secure Boot %s and components %v", v.State, log.SecureBoot, log.Components)
	}
	for pcr := range 8 {
		if got, want := v.State.Values[pcr], log.PCRs[string(rune('0'+pcr))]; got != want {
			m.t.Errorf("PCR %d is %s, want %s", pcr, got, want)
		}
	}
	for i, c := range v.State.Components {
		if want := log.Components[i]; !strings.Contains(want, c.Digest) || !strings.HasSuffix(want, " "+c.Name) {
			m.t.Errorf("component %+v, want %s", c, want)
		}
	}
}

// enforce refuses from now on what is not in the baseline; Secure Boot stays
// monitored where the machine has none.
func (m *machineRoom) enforce(log *recorded) {
	m.t.Helper()
	modes := map[string]any{"pcr_values": "enforce", "secure_boot_keys": "enforce", "boot_components": "enforce"}
	if log.SecureBoot == "on" {
		modes["secure_boot"] = "enforce"
	}
	m.write("role/boot", modes)
	p, err := prover.Open(m.t.Context(), prover.Config{Device: m.tpm.Device(), EventLog: filepath.Join(m.dir, "event-log"), StateDir: m.dir})
	check(m.t, err)
	defer func() { check(m.t, p.Close()) }()
	m.in(p, bootAccepted, true)
	before := m.content()
	m.in(p, bootAccepted, false)
	if !maps.Equal(before, m.content()) {
		m.t.Error("a login with nothing new was written")
	}
}

// bootOther boots the software of another machine, which is refused with a verdict
// that names it, and then its own again.
func (m *machineRoom) bootOther(log, other *recorded) {
	m.t.Helper()
	p := m.boot(other)
	_, asked, err := m.try(p)
	check(m.t, p.Close())
	wantRefusal(m.t, err, attest.RuleBootPolicy)
	if !asked {
		m.t.Error("refused without a look at values and log")
	}
	v := m.verdict("spire", "boot")
	m.compare(v, other)
	if v.Accepted {
		m.t.Error("the verdict says accepted")
	}
	m.names(v, log, other)

	p = m.boot(log)
	defer func() { check(m.t, p.Close()) }()
	m.in(p, bootAccepted, false)
}

// names wants the verdict to name each component that the baseline does not have,
// by PCR, event, name and digest.
func (m *machineRoom) names(v *shown, log, other *recorded) {
	m.t.Helper()
	named := 0
	for i, c := range v.State.Components {
		if slices.ContainsFunc(log.Components, func(known string) bool { return strings.Contains(known, c.Digest) }) {
			continue
		}
		named++
		found := slices.ContainsFunc(v.Findings, func(f finding) bool {
			return f.Check == "boot-components" && f.PCR != nil && *f.PCR == c.PCR && f.Event == c.Event && f.Event > 0 &&
				f.Component == c.Name && strings.HasPrefix(f.Text, "PCR ") && strings.Contains(f.Text, c.Name) &&
				strings.Contains(f.Text, c.Digest[:12])
		})
		if !found {
			m.t.Errorf("nothing names %s: %+v", other.Components[i], v.Findings)
		}
	}
	if named == 0 {
		m.t.Errorf("%s has no component that %s has not", other.name, log.name)
	}
	if !slices.ContainsFunc(v.Findings, func(f finding) bool {
		return f.Check == "pcr-values" && strings.Contains(f.Text, "nearest is the entry from spire")
	}) {
		m.t.Errorf("nothing says from what it moved: %+v", v.Findings)
	}
}
