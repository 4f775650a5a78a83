// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"funlab.casa/omen/test/authority"
	"funlab.casa/omen/test/world"
)

// What the world does not have, and what is done in its place.

// A substitute does what a line would do that cannot be typed here.
type substitute struct {
	line *regexp.Regexp
	do   func(*reader, *terminal, []string) (answer, error)
}

// substitutes are all such lines. The hosts here have no systemd: what is done in the
// place of its lines is what they would do to files and processes. Those about the
// timer of before are run on a machine that has it, in test/systemd.
var substitutes = []substitute{
	{regexp.MustCompile(`^systemctl disable --now renew-keylime-certs\.timer$`), (*reader).disableTimer},
	{regexp.MustCompile(`^systemctl enable --now renew-keylime-certs\.timer$`), (*reader).enableTimer},
	{regexp.MustCompile(`^systemctl daemon-reload$`), (*reader).nothing},
	{regexp.MustCompile(`^systemctl enable --now omen-agent\.service$`), (*reader).startRun},
	{regexp.MustCompile(`^systemctl disable --now omen-agent\.service$`), (*reader).stopRun},
	{regexp.MustCompile(`^systemctl restart omen-agent\.service$`), (*reader).restartRun},
	{regexp.MustCompile(`^systemctl restart openbao\.service$`), (*reader).restartOpenBao},
	{regexp.MustCompile(`^bao operator unseal$`), (*reader).unseal},
	{regexp.MustCompile(`^scp ([a-z.\- ]+) root@([a-z]+)\.funlab\.casa:$`), (*reader).carry},
	{regexp.MustCompile(`(?s)^(bao write auth/tpm/config )(.*)$`), (*reader).believeSoftware},
	{regexp.MustCompile(`(?s)^(bao write auth/tpm/role/keylime )(.*)$`), (*reader).takeSoftware},
}

// typeLine types a line, or does what it would do.
func (r *reader) typeLine(t *terminal, line string) (answer, error) {
	for _, s := range substitutes {
		if m := s.line.FindStringSubmatch(line); m != nil {
			return s.do(r, t, m)
		}
	}
	if strings.Contains(line, "systemctl ") {
		return answer{}, fmt.Errorf("there is no systemd here, and nothing in its place for %q", line)
	}
	return t.run(line, "")
}

// disableTimer takes the link away that switches the timer on. The line must be what
// omen-agent itself has said.
func (r *reader) disableTimer(t *terminal, m []string) (answer, error) {
	if !strings.Contains(r.said, "omen-agent: hint: "+m[0]+"\n") {
		return answer{}, fmt.Errorf("omen-agent has not said %q but:\n%s", m[0], r.said)
	}
	return answer{}, t.host.DisableSeedTimer(r.ctx)
}

func (r *reader) enableTimer(t *terminal, _ []string) (answer, error) {
	return answer{}, t.host.EnableSeedTimer(r.ctx)
}

// nothing is for units, which nobody here has read.
func (r *reader) nothing(*terminal, []string) (answer, error) { return answer{}, nil }

const runLog = "/var/log/omen-agent.log"

// startRun starts omen-agent run as its unit would, and waits until it has looked at
// what is there and found nothing to do.
func (r *reader) startRun(t *terminal, _ []string) (answer, error) {
	r.world.Watch(t.host, runLog)
	a, err := t.run("omen-agent run >"+runLog+" 2>&1 & RUN=$!", "")
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	return a, world.Await(ctx, func(context.Context) error {
		text, err := t.host.ReadFile(runLog)
		if err == nil && !strings.Contains(string(text), `msg="certificates until `) {
			err = fmt.Errorf("omen-agent run says:\n%s", text)
		}
		return err
	})
}

// stopRun ends it with TERM, which is no error.
func (r *reader) stopRun(t *terminal, _ []string) (answer, error) {
	return t.run("kill $RUN; wait $RUN", "")
}

func (r *reader) restartRun(t *terminal, m []string) (answer, error) {
	if a, err := r.stopRun(t, m); err != nil || a.code != 0 {
		return a, err
	}
	return r.startRun(t, m)
}

// restartOpenBao ends with a server that is sealed.
func (r *reader) restartOpenBao(*terminal, []string) (answer, error) {
	if err := r.world.Bao.Stop(); err != nil {
		return answer{}, err
	}
	return answer{}, r.world.Bao.StartSealed(r.ctx)
}

var progress = regexp.MustCompile(`Unseal Progress +1/2`)

// unseal types the next share where bao asks for it, which it does at a terminal only.
func (r *reader) unseal(t *terminal, m []string) (answer, error) {
	status, err := t.run("bao status", "")
	if err != nil {
		return status, err
	}
	shares := r.world.Bao.Shares()
	last := progress.MatchString(status.stdout)
	share := shares[0]
	if last {
		share = shares[1]
	}
	a, err := t.run("script --quiet --return --command '"+m[0]+"' /dev/null", share+"\n")
	if err == nil && last {
		err = r.world.Bao.AwaitReady(r.ctx)
	}
	return a, err
}

// carry brings files from one reader's folder to the other's.
func (r *reader) carry(t *terminal, m []string) (answer, error) {
	to := r.terminals[m[2]]
	if to == nil {
		return answer{}, fmt.Errorf("there is no host %q", m[2])
	}
	for name := range strings.FieldsSeq(m[1]) {
		text, err := t.host.ReadFile(home + "/" + name)
		if err != nil {
			return answer{}, err
		}
		if err := to.host.WriteFile(home+"/"+name, text, 0o644); err != nil {
			return answer{}, err
		}
	}
	return answer{}, nil
}

// believeSoftware adds the vendor of this world's TPMs, which are none in hardware.
func (r *reader) believeSoftware(t *terminal, m []string) (answer, error) {
	issuer := authority.CertificatePEM(r.world.VendorIssuer().Raw)
	if err := t.host.WriteFile(home+"/vendor-intermediates.pem", issuer, 0o644); err != nil {
		return answer{}, err
	}
	root := authority.CertificatePEM(r.world.VendorRoot().Raw)
	if err := t.host.WriteFile(home+"/virtual-roots.pem", root, 0o644); err != nil {
		return answer{}, err
	}
	return t.run(m[1]+"virtual_roots=@virtual-roots.pem "+m[2], "")
}

func (r *reader) takeSoftware(t *terminal, m []string) (answer, error) {
	return t.run(m[1]+"ek_classes=virtual "+m[2], "")
}

// inThisWorld is a file for a host whose TPM is a socket and whose firmware has no
// event log. Its services are started by commands.
func inThisWorld(h *world.Host, text string) string {
	text = strings.Replace(text, `device = "/dev/tpmrm0"`, fmt.Sprintf("device = %q\nevent_log = \"none\"", h.TPM.Device()), 1)
	if h.Name == world.Auth {
		text += `[certificate.service]
start    = ["/usr/bin/keylime_agent"]
user     = "root"
log      = "/var/log/keylime-agent.log"
pid_file = "/run/omen-agent/agent.pid"
`
	}
	return text
}
