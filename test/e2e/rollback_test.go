// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// breakage is where the wrapped program looks for what to do instead of its
// work, once.
const breakage = "/run/keylime/break"

// wrap puts a script in the place of a program of Keylime: it is that program,
// but for what breakNext asks for.
func (m *machine) wrap(ctx context.Context, t *testing.T, program string) {
	t.Helper()
	real := "/usr/local/lib/keylime/" + program
	check(m.Must(ctx, "sh", "-ec", "mkdir -p /usr/local/lib/keylime && mv /usr/bin/"+program+" "+real))(t)
	script := "#!/bin/sh\nif [ -e " + breakage + " ]; then . " + breakage + "; fi\nexec " + real + " \"$@\"\n"
	must(t, m.WriteFile("/usr/bin/"+program, []byte(script), 0o755))
}

// breakNext has the next start of the wrapped program run a shell command first.
func (m *machine) breakNext(t *testing.T, command string) {
	t.Helper()
	user := check(m.User("keylime"))(t)
	must(t, m.WriteFileAs(breakage, []byte("rm "+breakage+"\n"+command+"\n"), 0o600, user.UID, user.GID))
}

// files is what installed lists, without the numbers of processes and what is kept of
// a set that was refused.
func files(t *testing.T, h *world.Host) listing {
	t.Helper()
	all := installed(t, h)
	for name := range all {
		if strings.HasPrefix(name, "/run/omen-agent") || strings.Contains(name, "/refused-") || strings.HasSuffix(name, "/refused.json") {
			delete(all, name)
		}
	}
	return all
}

// wantRolledBack renews and wants it to fail after the installation.
func (m *machine) wantRolledBack(ctx context.Context, t *testing.T, step, says string) {
	t.Helper()
	result := agent(ctx, t, m.Host, "renew")
	badInput{code: 8, step: step, says: says}.judge(t, result)
	if !strings.Contains(result.Stderr, "(rolled back: the set before is in place)") {
		t.Errorf("the error does not say that the set before is in place:\n%s", result.Stderr)
	}
	if m.Exists(breakage) {
		t.Error("the broken start did not happen")
	}
	m.wantRefusedKept(ctx, t)
}

// wantRefusedKept wants the certificates of one refused set, and no key.
func (m *machine) wantRefusedKept(ctx context.Context, t *testing.T) {
	t.Helper()
	kept := check(m.Must(ctx, "sh", "-c", "ls -d /var/lib/omen-agent/keylime/refused-*; ls -A /var/lib/omen-agent/keylime/refused-*/"))(t).Stdout
	if strings.Count(kept, "refused-") != 1 || !strings.Contains(kept, m.service+".crt") {
		t.Errorf("of the refused set is kept:\n%s", kept)
	}
	for line := range strings.Lines(kept) {
		if name := strings.TrimSpace(line); strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".sealed") {
			t.Errorf("a key is kept: %s", name)
		}
	}
}

// TestRollBack: the new set is not served, so the set before is put back and
// served again, and the drop-ins are what they were.
func TestRollBack(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "back", world.Verifier)
	m.wrap(ctx, t, "keylime_verifier")

	t.Run("first installation", func(t *testing.T) {
		before := files(t, m.Host)
		m.breakNext(t, "exit 1")
		m.wantRolledBack(ctx, t, "reload", "keylime_verifier: service does not run")
		m.wantNothing(ctx, t, before)
	})
	renew(ctx, t, m.Host, 0)
	// An older version of ours wrote other drop-ins.
	check(m.Must(ctx, "sh", "-ec", "echo '# of before' >> /etc/keylime/verifier.conf.d/50-omen.conf"))(t)
	for _, row := range []struct{ name, command, step, says string }{
		{"does not start", "exit 1", "reload", "keylime_verifier: service does not run"},
		{"serves something else", `export KEYLIME_VERIFIER_TLS_DIR=/run/keylime/other`, "probe", "certificate verifier: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			check(m.Must(ctx, "sh", "-ec", "rm -rf /run/keylime/other; cp -aL /etc/keylime/certs /run/keylime/other; chown -R keylime /run/keylime/other"))(t)
			before, leaf := files(t, m.Host), m.served(ctx, t)
			m.breakNext(t, row.command)
			m.wantRolledBack(ctx, t, row.step, row.says)
			wantSame(t, before, files(t, m.Host))
			m.wantLeaf(ctx, t, leaf)
			m.wantServed(ctx, t)
		})
	}
	renew(ctx, t, m.Host, 0)
	m.wantServed(ctx, t)
}

// wantNothing wants a host on which nothing was installed.
func (m *machine) wantNothing(ctx context.Context, t *testing.T, before listing) {
	t.Helper()
	after := files(t, m.Host)
	for name := range after {
		if strings.HasPrefix(name, "/var/lib/omen-agent") && before[name] == "" {
			delete(after, name)
		}
	}
	wantSame(t, before, after)
	for _, dir := range []string{"/var/lib/omen-agent/keylime", "/run/omen-agent"} {
		// The refused set is kept to look at; folders of the tmpfs are empty.
		if left := check(m.Must(ctx, "find", dir, "-mindepth", "1", "-not", "-path", "*/refused-*", "-not", "-path", "/run/omen-agent/keylime"))(t); left.Stdout != "" {
			t.Errorf("left: %s", left.Stdout)
		}
	}
	if left := check(m.Run(ctx, "pgrep", "-f", "keylime_"+m.service))(t); left.Code != 1 {
		t.Errorf("runs still: %s", left.Stdout)
	}
}

// TestRollBackToWhatWasByHand: the first installation took over a folder that
// people had filled. It fails, and what they had serves again.
func TestRollBackToWhatWasByHand(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "hand", world.Agent)
	renew(ctx, t, m.Host, 0)
	m.byHand(ctx, t)
	m.wrap(ctx, t, "keylime_agent")
	leaf, byHand := m.served(ctx, t), listing{}
	byHand.walk(t, m.Host, "/etc/keylime/certs")
	m.breakNext(t, "exit 1")
	m.wantRolledBack(ctx, t, "reload", "keylime_agent: service does not run")

	if got := generation(t, m.Host); got != "gen-000000" {
		t.Errorf("current is %s", got)
	}
	for name, before := range byHand {
		kept := listing{}
		kept.walk(t, m.Host, strings.Replace(name, "/etc/keylime/certs", "/var/lib/omen-agent/keylime/gen-000000", 1))
		for _, after := range kept {
			if name != "/etc/keylime/certs" && after != before {
				t.Errorf("%s was %s, generation 0 has %s", name, before, after)
			}
		}
	}
	if m.Exists("/etc/keylime/agent.conf.d/50-omen.conf") || !m.Exists("/etc/keylime/agent.conf.d/10-hand.conf") {
		t.Error("the drop-ins are not what they were")
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	must(t, world.Await(short, func(ctx context.Context) error { _, err := l.World.Served(ctx, m.address); return err }))
	m.wantLeaf(ctx, t, leaf)
	renew(ctx, t, m.Host, 0)
	m.wantServed(ctx, t)
}
