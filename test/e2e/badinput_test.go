// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/test/world"
)

// A badInput is one thing that is wrong on the way. bend makes it so and has the
// test put it right again at its end.
type badInput struct {
	name string
	bend func(ctx context.Context, t *testing.T, m *machine)
	code int
	step string // the error begins with it
	says string // the cause, in the error
	hint string // in the hint
}

// badInputs are those that show at once, on one host in turn. The servers that
// do not answer are in badserver_test.go.
var badInputs = []badInput{
	{"configuration with an unknown key", config(`role      = "keylime"`, "role = \"keylime\"\nskip_verify = true"),
		2, "/etc/omen-agent/agent.toml:6", `unknown key "openbao.skip_verify"`, "remove the line"},
	{"configuration that is no TOML", config("[pki]", "[pki"),
		2, "/etc/omen-agent/agent.toml:12", "expected", "the format is TOML"},
	{"configuration that others can write", shell("chmod 0666 /etc/omen-agent/agent.toml", "chmod 0644 /etc/omen-agent/agent.toml"),
		2, world.AgentConfig, "can be written by others than root", "chmod go-w"},
	{"file that is not there", config(world.AnchorFile, "/etc/omen-agent/absent.pem"),
		2, "/etc/omen-agent/agent.toml:13", "/etc/omen-agent/absent.pem: no such file", "the root that every chain must reach"},
	{"TPM absent", config("unix:/", "unix:/absent/"),
		5, "tpm", "no TPM there", "check device in [tpm]"},
	{"TPM node absent", config(`device    = "unix:`, `device    = "/dev/tpmrm7" # "`),
		5, "tpm", "open TPM /dev/tpmrm7: no TPM there", "check device in [tpm]"},
	{"TPM busy", busyTPM,
		5, "tpm", "the TPM is in use by another program", "another program holds the TPM"},
	{"CA of OpenBao unknown", unknownCA,
		4, "challenge", "unknown-ca", "Nothing of it was trusted"},
	{"OpenBao's certificate for another name", anotherName,
		4, "challenge", "bad-certificate", "tls_server_name"},
	{"host not enrolled", notEnrolled,
		3, "login", "refused: host-unknown (HTTP 403)", "enrol this host: bao write auth/tpm/host/<name>"},
	{"role that is not there", config(`"keylime"`, `"absent"`),
		3, "challenge", "refused: role (HTTP 403)", "the role in agent.toml does not exist"},
	{"auth method that is not there", config(`"auth/tpm"`, `"auth/absent"`),
		3, "challenge", "denied (HTTP 403)", "check that the auth method is mounted at auth_path"},
	{"audience that the server does not have", audienceGone,
		3, "login", "refused: audience (HTTP 403)", "add the address, namespace and mount"},
	{"host policy missing", policyGone,
		6, "sign verifier", "denied (HTTP 403)", "the host's policy omen-host-<host> must allow update"},
	{"sign path of another host", config(`profile = "keylime-verifier"`, "profile = \"keylime-verifier\"\nrole = \"spire.server\""),
		6, "sign verifier", "denied (HTTP 403)", "the host's policy"},
	{"name that the PKI role does not allow", config(`common_name = "`, `common_name = "x.`),
		6, "sign verifier", "rejected (HTTP 400): common name x.bad.keylime.funlab.casa not allowed", "the PKI role <host>.<usage>"},
	{"PKI role that is not there", roleGone,
		6, "sign verifier", "rejected (HTTP 400): unknown role: bad.server", "the PKI role <host>.<usage> must exist"},
	{"reply with a further usage", bentRole(map[string]any{"client_flag": true}),
		6, "check verifier", "rule usage: extended key usage is not exactly serverAuth", "correct the PKI role"},
	{"reply with other names", bentRole(map[string]any{"use_csr_sans": false}),
		6, "check verifier", "rule name", "correct the PKI role"},
	{"reply for longer than asked", bentRole(map[string]any{"not_before_duration": "3600s"}),
		6, "check verifier", "rule validity: lifetime 25h0m0s, asked for 24h0m0s", "not_before_duration"},
	{"root expired", expiredRoot,
		6, "check verifier", "rule issuer-expired", "a root or intermediate that is valid"},
	{"anchor that is another root", anotherAnchor,
		6, "check verifier", "rule chain", "bring the root of the PKI mount"},
	{"disk full", diskFull,
		7, "install", "no space left on device", "free some space"},
	{"disk read-only", shell("mount --bind /var/lib/omen-agent /var/lib/omen-agent && mount -o remount,bind,ro /var/lib/omen-agent", "umount /var/lib/omen-agent"),
		7, "install", "read-only file system", "writable"},
	{"service user missing", noUser,
		7, "install", "certificate verifier: missing service user", "useradd --system keylime"},
	{"drop-in that overrides ours", lateDropIn,
		7, "install", "/etc/keylime/verifier.conf.d/90-site.conf: server_cert: setting is overridden", "take the setting out of that file"},
	{"main file missing", shell("mv /etc/keylime/verifier.conf /run/verifier.conf", "mv /run/verifier.conf /etc/keylime/verifier.conf"),
		7, "install", "verifier.conf: main configuration file is missing", "keylime_upgrade_config"},
	{"second omen-agent at work", secondAgent,
		7, "install", "another omen-agent is installing", "wait for it"},
	{"timer of before that is enabled", seedTimer,
		7, "install", "something else renews certificates here: renew-keylime-certs.timer", "systemctl disable --now renew-keylime-certs.timer"},
}

// seedTimer enables the renewal that the seed has.
func seedTimer(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	const link = "/etc/systemd/system/timers.target.wants/renew-keylime-certs.timer"
	r, err := world.ReadSeedRenewal()
	must(t, err)
	files := map[string][]byte{world.SeedScriptFile: r.Script, world.SeedServiceFile: r.Service, world.SeedTimerFile: r.Timer}
	for path, text := range files {
		check(m.Must(ctx, "mkdir", "-p", filepath.Dir(path), filepath.Dir(link)))(t)
		must(t, m.WriteFile(path, text, 0o755))
		t.Cleanup(func() { check(m.Must(context.WithoutCancel(ctx), "rm", path))(t) })
	}
	shell("ln -s "+world.SeedTimerFile+" "+link, "rm "+link)(ctx, t, m)
}

// TestBadInput: whatever is wrong, omen-agent ends with a clear error, and the
// certificate of before is in place and served.
func TestBadInput(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "bad", world.Verifier)
	renew(ctx, t, m.Host, 0)
	for _, row := range badInputs {
		t.Run(row.name, func(t *testing.T) {
			row.bend(ctx, t, m)
			row.play(ctx, t, m)
		})
	}
	before := generation(t, m.Host)
	renew(ctx, t, m.Host, 0)
	if generation(t, m.Host) == before {
		t.Error("after all that, a renewal changes nothing")
	}
	m.wantServed(ctx, t)
}

// play runs one renewal and holds what is left behind against what was there.
func (b badInput) play(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	files, leaf := installed(t, m.Host), m.served(ctx, t)
	b.judge(t, agent(ctx, t, m.Host, "renew"))
	wantSame(t, files, installed(t, m.Host))
	m.wantLeaf(ctx, t, leaf)
}

// judge wants exit code, error and hint of a result.
func (b badInput) judge(t *testing.T, result world.Result) {
	t.Helper()
	if result.Code != b.code {
		t.Errorf("exit code %d, not %d", result.Code, b.code)
	}
	said := line(result.Stderr, "omen-agent: error: ")
	if !strings.HasPrefix(said, b.step+": ") || !strings.Contains(said, b.says) {
		t.Errorf("the error is %q; wanted is %s: … %q", said, b.step, b.says)
	}
	if hint := line(result.Stderr, "omen-agent: hint: "); !strings.Contains(hint, b.hint) {
		t.Errorf("the hint is %q; wanted is %q", hint, b.hint)
	}
	if t.Failed() {
		t.Logf("omen-agent says:\n%s", result.Stderr)
	}
}

// line is the rest of the one line that begins so, or nothing.
func line(text, begin string) string {
	var found []string
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, begin); ok {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// config bends agent.toml.
func config(old, changed string) func(context.Context, *testing.T, *machine) {
	return func(_ context.Context, t *testing.T, m *machine) { m.changeConfig(t, old, changed) }
}

// shell runs one command line on the host, and another at the end of the test.
func shell(bend, mend string) func(context.Context, *testing.T, *machine) {
	return func(ctx context.Context, t *testing.T, m *machine) {
		t.Helper()
		t.Cleanup(func() { check(m.Must(context.WithoutCancel(ctx), "sh", "-c", mend))(t) })
		check(m.Must(ctx, "sh", "-ec", bend))(t)
	}
}

// bentRole has an administrator change the host's PKI role for servers.
func bentRole(changes map[string]any) func(context.Context, *testing.T, *machine) {
	return func(ctx context.Context, t *testing.T, m *machine) {
		t.Helper()
		path := "pki_int/roles/" + m.Name + ".server"
		role := m.lab.read(ctx, t, path)
		t.Cleanup(func() { m.lab.write(context.WithoutCancel(ctx), t, path, role) })
		bent := maps.Clone(role)
		maps.Copy(bent, changes)
		m.lab.write(ctx, t, path, bent)
	}
}
