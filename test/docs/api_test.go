// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/base64"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

const (
	shim      = `\EFI\debian\shimx64.efi`
	otherShim = `\EFI\BOOT\BOOTX64.EFI`
)

// apiPage prepares what the requests of docs/auth-method-api.md are about.
type apiPage struct {
	*play
	spire *machine
}

// readAPI plays docs/auth-method-api.md.
func readAPI(t *testing.T, s *stage) {
	s.delete("sys/" + mount) // another page's
	s.write("sys/"+mount, map[string]any{"type": "tpm"})
	p := &apiPage{play: s.play(t), spire: s.machine(shim)}
	p.use(p.spire)
	p.before = map[string]func(){
		"Delete a role":               p.oldRole,
		"Enrol or change a host":      func() { p.use(p.spire) },
		"Read a host":                 func() { p.spire.in("keylime") },
		"Delete a host":               p.oldHost,
		"Replace a host's board":      p.oldBoard,
		"Import an inventory":         p.newHosts,
		"List tombstones":             p.tombstone,
		"Read a tombstone":            p.tombstone,
		"Delete a tombstone":          p.tombstone,
		"Issue a ticket":              p.ticket,
		"List tickets":                p.ticket,
		"Read a ticket":               p.ticket,
		"Delete a ticket":             p.ticket,
		"List TPMs that wait":         p.pending,
		"Read about a TPM that waits": p.pending,
		"Approve a TPM":               p.pending,
		"Deny a TPM":                  p.pending,
		"Create or change a baseline": func() { p.use(p.spire) },
		"Promote a host's state":      p.state,
		"Delete a baseline":           func() { s.write(mount+"/baseline/old", map[string]any{"components": ""}) },
		"Read a verdict":              p.moved,
		"Read statistics":             p.counted,
		"Ask for a challenge":         p.unknown,
		"Log in":                      p.challenged,
	}
	p.perform(t, "../../docs/auth-method-api.md")
}

// use makes a machine the one that TPM_ID and PCR_DIGEST are about.
func (p *apiPage) use(m *machine) {
	set(p.play, map[string]string{"TPM_ID": m.id, "PCR_DIGEST": m.digest()})
}

func (p *apiPage) oldRole() {
	p.write(mount+"/role/old", map[string]any{"way_in": "allow-list", "pcrs": "7"})
}

func (p *apiPage) host(name string) *machine {
	m := p.machine(shim)
	p.remove(name)
	p.write(mount+"/host/"+name, map[string]any{"tpm_ids": m.id, "roles": "keylime"})
	return m
}

func (p *apiPage) oldHost() { p.host("old") }

func (p *apiPage) oldBoard() {
	p.host("auth")
	set(p.play, map[string]string{"NEW_TPM_ID": p.machine(shim).id})
}

func (p *apiPage) newHosts() {
	p.use(p.machine(shim))
	set(p.play, map[string]string{"NEW_TPM_ID": p.machine(shim).id})
}

func (p *apiPage) tombstone() {
	m := p.host("old")
	m.in("keylime")
	p.delete(mount + "/host/old")
	p.use(m)
}

func (p *apiPage) ticket() {
	p.write(mount+"/role/edge", map[string]any{"way_in": "ticket", "pcrs": selection.PCRs})
	p.clear("ticket")
	p.use(p.machine(shim))
	wrapped := p.issue(map[string]any{"role": "edge", "host": "web3", "tpm_id": p.shell.env["TPM_ID"]})
	ticket, err := p.admin.Logical().UnwrapWithContext(p.t.Context(), wrapped)
	check(p.t, err)
	set(p.play, map[string]string{
		"TICKET_ID":      ticket.Data["ticket_id"].(string),
		"WRAPPING_TOKEN": p.issue(map[string]any{"role": "edge", "host": "web3", "any_tpm": true}),
	})
	if p.section == "Issue a ticket" {
		return
	}
	// One ticket is shown, that of TICKET_ID.
	other, err := p.admin.Logical().UnwrapWithContext(p.t.Context(), p.shell.env["WRAPPING_TOKEN"])
	check(p.t, err)
	p.delete(mount + "/ticket/" + other.Data["ticket_id"].(string))
}

// issue gives the wrapping token of a new ticket.
func (s *stage) issue(data map[string]any) string {
	s.t.Helper()
	wrapping, err := s.admin.Clone()
	check(s.t, err)
	wrapping.SetToken(s.admin.Token())
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "10m" })
	secret, err := wrapping.Logical().WriteWithContext(s.t.Context(), mount+"/ticket", data)
	check(s.t, err)
	return secret.WrapInfo.Token
}

func (p *apiPage) pending() {
	p.write(mount+"/role/guests", map[string]any{"way_in": "pending", "pcrs": selection.PCRs})
	p.remove("guest1")
	p.clearPending()
	m := p.machine(shim)
	m.out("guests", attest.RulePending)
	p.use(m)
}

func (s *stage) clearPending() {
	s.t.Helper()
	list, err := s.admin.Logical().ListWithContext(s.t.Context(), mount+"/pending")
	check(s.t, err)
	if list == nil {
		return
	}
	for _, id := range list.Data["keys"].([]any) {
		s.write(mount+"/pending/"+id.(string)+"/deny", nil)
	}
	s.clear("tombstone")
}

// state has spire log in and shows what it booted.
func (p *apiPage) state() {
	p.spire.in("keylime")
	set(p.play, map[string]string{"STATE_ID": p.stateOf("spire", "keylime")})
}

func (s *stage) stateOf(host, role string) string {
	s.t.Helper()
	roles := s.read(mount + "/verdict/" + host)["roles"].(map[string]any)
	return roles[role].(map[string]any)["state_id"].(string)
}

// moved has spire boot another loader than its record and baselines know.
func (p *apiPage) moved() {
	p.write(mount+"/baseline/fleet", map[string]any{"pcr_digests": ""})
	p.write(mount+"/host/spire", map[string]any{"pcr_digests": ""})
	if p.spire.digest() == p.shell.env["PCR_DIGEST"] {
		p.spire.boot(otherShim)
	}
	p.spire.in("keylime")
}

// counted starts the counts anew, and has something of each kind happen.
func (p *apiPage) counted() {
	p.write("sys/plugins/reload/backend", map[string]any{"mounts": mount})
	p.spire.in("keylime")
	p.machine(shim).out("keylime", attest.RuleHostUnknown)
	reset := p.spire.Counters
	p.spire.Counters.Reset = 1
	p.spire.out("keylime", attest.RuleClone)
	p.spire.Counters = reset
}

// unknown is a machine whose attestation key is not pinned.
func (p *apiPage) unknown() {
	m := p.machine(shim)
	request, err := m.Request("keylime")
	check(p.t, err)
	set(p.play, map[string]string{"EK_CERTIFICATE": encode(request.EKCertificate), "AK_PUBLIC": encode(request.AKPublic)})
}

// challenged has spire answer a new challenge.
func (p *apiPage) challenged() {
	c, err := p.spire.Challenge(p.t.Context(), p.mount, "keylime")
	check(p.t, err)
	key, err := attacker.NewKey(nil)
	check(p.t, err)
	m, err := p.spire.Answer(c, attacker.Login{Role: "keylime", Audience: p.audience(), Keys: [][]byte{key.SPKI}})
	check(p.t, err)
	set(p.play, map[string]string{
		"CHALLENGE": encode(m.Challenge), "AUDIENCE": m.Audience, "QUOTE": encode(m.Quote), "SIGNATURE": encode(m.Signature),
		"EVENT_LOG_HASH": encode(m.EventLogHash), "KEY": encode(key.SPKI),
	})
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
