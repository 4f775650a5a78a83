// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// methodPage prepares what the requests of docs/auth-method.md are about.
type methodPage struct {
	*play
	spire, web1, web2 *machine
	counted           bool // what the quota lets through
}

// readMethod plays docs/auth-method.md.
func readMethod(t *testing.T, s *stage) {
	p := &methodPage{play: s.play(t), spire: s.machine(shim), web1: s.machine(shim), web2: s.machine(shim)}
	tpm := func(m *machine) func() { return func() { set(p.play, map[string]string{"TPM_ID": m.id}) } }
	p.before = map[string]func(){
		"By any client":           p.client,
		"Enable the method":       func() { s.delete("sys/" + mount) },
		"Hosts by allow-list":     tpm(p.spire),
		"Hosts by ticket":         func() { p.spire.in("keylime"); tpm(p.web1)() },
		"Hosts by approval":       p.approval,
		"From monitor to enforce": p.monitored,
		"When something moved":    p.moved,
		"Stop a host":             p.stopped,
		"Quotas":                  func() { p.web2.in("guests"); p.spire.in("keylime") }, // it is enabled again
		"Audit":                   p.limited,
		"Statistics and alarms":   p.audited,
		"Upgrade":                 p.program,
	}
	p.perform(t, "../../docs/auth-method.md")
	p.spire.in("keylime")
}

// client is one that has its messages in files.
func (p *methodPage) client() {
	if p.answer == "" {
		p.write("sys/"+mount, map[string]any{"type": "tpm"})
		p.write(mount+"/config", map[string]any{"hardware_roots": p.vendor.PEM(), "audiences": p.audience()})
		p.write(mount+"/role/keylime", map[string]any{"way_in": "allow-list", "pcrs": selection.PCRs, "token_no_default_policy": true})
		p.write(mount+"/host/spire", map[string]any{"tpm_ids": p.spire.id, "roles": "keylime"})
	}
	request, err := p.spire.Request("keylime")
	check(p.t, err)
	p.message("challenge.json", request)
	c, err := p.spire.Challenge(p.t.Context(), p.mount, "keylime")
	check(p.t, err)
	login, err := p.spire.Answer(c, attacker.Login{Role: "keylime", Audience: p.audience()})
	check(p.t, err)
	p.message("login.json", login)
}

func (p *methodPage) message(file string, m any) {
	text, err := json.Marshal(m)
	check(p.t, err)
	p.shell.write(p.t, file, string(text))
}

// approval has web1 spend the ticket that the page made, and web2 wait.
func (p *methodPage) approval() {
	if wrapped, err := os.ReadFile(filepath.Join(p.shell.dir, "ticket")); err == nil {
		secret, err := p.admin.Logical().UnwrapWithContext(p.t.Context(), strings.TrimSpace(string(wrapped)))
		check(p.t, err)
		var ticket []byte
		check(p.t, json.Unmarshal([]byte(`"`+secret.Data["ticket"].(string)+`"`), &ticket))
		if host := p.web1.enter("edge", attest.Ticket(ticket))["host"]; host != "web1" {
			p.t.Errorf("the ticket makes host %q", host)
		}
		check(p.t, os.Remove(filepath.Join(p.shell.dir, "ticket")))
		set(p.play, map[string]string{"TPM_ID": p.web2.id})
		return // the role is not there yet
	}
	p.web2.attest("guests", nil)
}

// monitored has spire log in as the role now is, and shows what it booted.
func (p *methodPage) monitored() {
	if boot := p.spire.in("keylime")["boot"]; boot != "not-checked" {
		set(p.play, map[string]string{"STATE_ID": p.stateOf("spire", "keylime")})
	}
}

// moved has spire boot another loader, which is refused, and shows both states.
func (p *methodPage) moved() {
	if p.spire.digest() != p.web1.digest() {
		return
	}
	if boot := p.spire.in("keylime")["boot"]; boot != "accepted" {
		p.t.Errorf("boot is %s", boot)
	}
	set(p.play, map[string]string{"OLD_STATE_ID": p.stateOf("spire", "keylime")})
	p.spire.boot(otherShim)
	p.spire.out("keylime", attest.RuleBootPolicy)
	set(p.play, map[string]string{"STATE_ID": p.stateOf("spire", "keylime")})
}

// stopped looks at whether the host gets in that was quarantined, and shows it.
func (p *methodPage) stopped() {
	set(p.play, map[string]string{"TPM_ID": p.spire.id})
	if p.read(mount + "/host/spire")["state"] == "active" {
		p.spire.in("keylime")
	} else {
		p.spire.out("keylime", attest.RuleHostDisabled)
	}
}

// limited counts what the quota of the page lets through: so many requests that
// name the role, challenges and logins together; others do not count.
func (p *methodPage) limited() {
	if p.section != "Audit" || p.counted {
		return
	}
	p.counted = true
	const rate = 120 // as in the page
	p.delete("sys/quotas/rate-limit/tpm-keylime")
	if _, err := p.shell.run(p.t, p.script); err != nil {
		p.t.Fatal(err)
	}
	if got := p.statuses("keylime", rate); got[http.StatusBadRequest] != rate {
		p.t.Errorf("within the quota: %v", got)
	}
	if got := p.statuses("keylime", 2); got[http.StatusTooManyRequests] != 2 {
		p.t.Errorf("a challenge and a login over the quota: %v", got)
	}
	if got := p.statuses("guests", 2); got[http.StatusBadRequest] != 2 {
		p.t.Errorf("another role: %v", got)
	}
	p.delete("sys/quotas/rate-limit/tpm-keylime")
}

// audited looks at what the audit log says of a login.
func (p *methodPage) audited() {
	p.spire.in("keylime")
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.node.LogFile()), "audit.log"))
	check(p.t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var entry struct {
		Request struct {
			Path string
			Data map[string]any
		}
		Auth struct{ Metadata map[string]string }
	}
	for _, line := range slices.Backward(lines) {
		check(p.t, json.Unmarshal([]byte(line), &entry))
		if entry.Request.Path == mount+"/login" && entry.Auth.Metadata != nil {
			break
		}
	}
	quote, _ := entry.Request.Data["quote"].(string)
	if entry.Request.Data["role"] != "keylime" || entry.Auth.Metadata["host"] != "spire" || !strings.HasPrefix(quote, "hmac-sha256:") {
		p.t.Errorf("the audit log has %+v", entry)
	}
}

// program puts the next version where the page has it.
func (p *methodPage) program() {
	name := pluginProgram + "-" + nextVersion
	if _, err := os.Stat(filepath.Join(p.plugins(), name)); err == nil {
		return
	}
	text, err := os.ReadFile(build(p.t, p.t.TempDir(), nextVersion))
	check(p.t, err)
	for _, dir := range []string{p.plugins(), p.shell.dir} {
		check(p.t, os.WriteFile(filepath.Join(dir, name), text, 0o700))
	}
}

// statuses sends requests that name a role, challenges and logins in turns.
func (s *stage) statuses(role string, count int) map[int]int {
	s.t.Helper()
	counted := map[int]int{}
	for i := range count {
		send := s.mount.Challenge
		if i%2 == 1 {
			send = s.mount.Login
		}
		answer, err := send(s.t.Context(), []byte(`{"v": 1, "role": "`+role+`"}`))
		check(s.t, err)
		counted[answer.Status]++
	}
	return counted
}
