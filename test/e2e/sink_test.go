// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/test/world"
)

const (
	sinkRole   = "bao-agent"
	sinkFile   = "/run/omen-agent/bao-agent.token"
	baoLog     = "/var/log/bao-agent.log"
	baoToken   = "/run/bao-agent/token" // what bao agent uses
	baoPage    = "/run/bao-agent/page"  // what it renders
	baoConf    = "/etc/bao-agent.hcl"
	sinkSecret = "kv/data/app"
)

// sinkTable is what docs/interplay.md tells people to write.
const sinkTable = `
[[sink]]
role  = "bao-agent"
file  = "/run/omen-agent/bao-agent.token"
owner = "openbao:openbao"
`

// baoAgent is OpenBao's own agent, as docs/interplay.md has it.
const baoAgent = `vault {
  address = "https://spire.funlab.casa:8200"
  ca_cert = "/etc/omen-agent/openbao-ca.pem"
}
auto_auth {
  method {
    type = "token_file"
    config = {
      token_file_path = "/run/omen-agent/bao-agent.token"
    }
  }
  sink {
    type = "file"
    config = {
      path = "/run/bao-agent/token"
    }
  }
}
template_config {
  static_secret_render_interval = "1s"
}
template {
  contents    = "{{ with secret \"kv/data/app\" }}{{ .Data.data.word }}{{ end }}"
  destination = "/run/bao-agent/page"
}
`

// other is a host whose agent keeps a token for bao agent.
type other struct{ *machine }

// newOther enrols a host for a second role, whose tokens read one secret.
func newOther(ctx context.Context, t *testing.T, l *lab, name string) other {
	t.Helper()
	m := other{l.add(ctx, t, name, world.Tenant)}
	l.write(ctx, t, "sys/mounts/kv", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	t.Cleanup(func() { l.remove(context.WithoutCancel(ctx), t, "sys/mounts/kv") })
	m.say(ctx, t, "first")
	l.write(ctx, t, "sys/policies/acl/"+sinkRole, map[string]any{"policy": `path "` + sinkSecret + `" { capabilities = ["read"] }`})
	m.role(ctx, t, nil)
	id := check(m.Identify(ctx))(t)
	l.write(ctx, t, "auth/tpm/host/"+m.Name, map[string]any{
		"tpm_ids": []string{id.TPMID}, "roles": []string{world.AgentRole, sinkRole}, "pcr_digests": []string{id.PCRDigest},
	})
	must(t, m.WriteFile(world.AgentConfig, []byte(m.AgentTOML(m.certificates)+sinkTable), 0o644))
	must(t, m.WriteFile(baoConf, []byte(baoAgent), 0o644))
	check(m.Must(ctx, "install", "-d", "-o", "openbao", "-g", "openbao", "-m", "0700", "/run/bao-agent"))(t)
	return m
}

// role writes the role of the tokens, with changes.
func (m other) role(ctx context.Context, t *testing.T, changes map[string]any) {
	t.Helper()
	data := map[string]any{
		"way_in": "allow-list", "ek_classes": "virtual", "pcr_bank": "sha256", "pcrs": []string{"0", "1", "2", "3", "4", "5", "6", "7"},
		"host_policy": false, "token_policies": []string{sinkRole}, "token_no_default_policy": false, "token_ttl": "2m",
	}
	maps.Copy(data, changes)
	m.lab.write(ctx, t, "auth/tpm/role/"+sinkRole, data)
}

// say changes the secret.
func (m other) say(ctx context.Context, t *testing.T, word string) {
	t.Helper()
	m.lab.write(ctx, t, sinkSecret, map[string]any{"data": map[string]any{"word": word}})
}

// startBao starts bao agent as the user of the token.
func (m other) startBao(ctx context.Context, t *testing.T) {
	t.Helper()
	p := check(m.StartEnv([]string{"HOME=/run/bao-agent"}, baoLog, "setpriv", "--reuid", "openbao", "--regid", "openbao", "--init-groups", "--no-new-privs", "bao", "agent", "-config", baoConf))(t)
	m.lab.World.Watch(m.Host, baoLog)
	t.Cleanup(func() { must(t, p.Stop(10*time.Second)) })
	must(t, p.Await(ctx, func(context.Context) error { _, err := m.ReadFile(baoPage); return err }))
}

// awaitFile waits until a file of the host holds this.
func (m other) awaitFile(ctx context.Context, t *testing.T, name, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	must(t, world.Await(ctx, func(context.Context) error {
		text, err := m.ReadFile(name)
		if err == nil && strings.TrimSpace(string(text)) != want {
			err = fmt.Errorf("%s does not hold what is wanted", name)
		}
		return err
	}))
}

func (m other) token(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(string(check(m.ReadFile(sinkFile))(t)))
}

// TestSink: omen-agent run keeps a token for the real bao agent, which renders a
// template by it and goes on with the next one. It signs nothing.
func TestSink(t *testing.T) {
	ctx, l := shared(t)
	m := newOther(ctx, t, l, "sink")
	d := startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, `msg="token written" sink=`+sinkFile)
	m.wantFile(t)
	m.wantPowers(ctx, t, m.token(t))
	if r := agent(ctx, t, m.Host, "status"); !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), sinkFile+" of role "+sinkRole+": until 2") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	m.startBao(ctx, t)
	m.awaitFile(ctx, t, baoPage, "first")
	m.awaitFile(ctx, t, baoToken, m.token(t))
	awaitLog(ctx, t, m.Host, "msg=renewed host=sink") // the certificates, beside it
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	if log := check(m.ReadFile(runLog))(t); bytes.Contains(log, []byte(m.token(t))) {
		t.Error("the token is in the log")
	}
}

// TestSinkIsReadAgain: bao agent takes the next token out of the file when two thirds of
// the life of the one before are over, and renders by it.
func TestSinkIsReadAgain(t *testing.T) {
	ctx, l := shared(t)
	m := newOther(ctx, t, l, "again")
	m.role(ctx, t, map[string]any{"token_ttl": "15s"})
	fill := func() string {
		t.Helper()
		if r := agent(ctx, t, m.Host, "login", "--sink", sinkFile); r.Code != 0 || !strings.Contains(r.Stdout, "token in") {
			t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		return m.token(t)
	}
	begin := time.Now()
	first := fill()
	m.startBao(ctx, t)
	m.awaitFile(ctx, t, baoToken, first)
	if second := fill(); second == first {
		t.Fatal("the same token twice")
	}
	m.awaitFile(ctx, t, baoToken, m.token(t))
	t.Logf("read again %s after the first token was made", time.Since(begin).Round(time.Second))
	if again := time.Since(begin); again > 15*time.Second {
		t.Errorf("only after %s: the first token was over", again)
	}
	m.say(ctx, t, "second")
	m.awaitFile(ctx, t, baoPage, "second")
}

// TestLogin: what a login shows, prints and refuses.
func TestLogin(t *testing.T) {
	ctx, l := shared(t)
	m := newOther(ctx, t, l, "login")
	r := agent(ctx, t, m.Host, "login")
	if r.Code != 0 || !strings.Contains(r.Stdout, "policies         omen-host-login") || !strings.Contains(r.Stdout, "thrown away") || strings.Contains(r.Stdout, batchToken) {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	r = agent(ctx, t, m.Host, "login", "--role", sinkRole, "--print")
	token := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || !strings.HasPrefix(token, batchToken) || strings.Contains(token, "\n") || m.Exists(sinkFile) {
		t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
	}
	m.wantPowers(ctx, t, token)

	// bao agent asks for its token; without the policy default it may not.
	m.role(ctx, t, map[string]any{"token_no_default_policy": true})
	bare := strings.TrimSpace(agent(ctx, t, m.Host, "login", "--role", sinkRole, "--print").Stdout)
	if _, err := l.client(t, bare).Auth().Token().LookupSelfWithContext(ctx); !denied(err) {
		t.Errorf("a token without the policy default is looked up: %v", err)
	}
	m.role(ctx, t, map[string]any{"host_policy": true})
	badInput{code: 7, step: "install", says: "have the policy omen-host-login", hint: "host_policy=false"}.judge(t,
		agent(ctx, t, m.Host, "login", "--sink", sinkFile))
	badInput{code: 2, step: "login", says: "whose tokens sign this host's certificates", hint: "a role of its own"}.judge(t,
		agent(ctx, t, m.Host, "login", "--sink", sinkFile, "--role", world.AgentRole))
	m.role(ctx, t, nil)
	badInput{code: 7, step: "install", says: "not a file system in memory", hint: "on a tmpfs"}.judge(t,
		agent(ctx, t, m.Host, "login", "--role", sinkRole, "--sink", m.disk(ctx, t)+"/token"))
	if m.Exists(sinkFile) {
		t.Error("a token was written")
	}
}

// disk is a folder of the host that is not in memory.
func (m other) disk(ctx context.Context, t *testing.T) string {
	t.Helper()
	for _, folder := range []string{"/usr/lib", "/usr/share", "/opt"} {
		r := check(m.Run(ctx, "stat", "-f", "-c", "%T", folder))(t)
		if r.Code == 0 && strings.TrimSpace(r.Stdout) != "tmpfs" {
			return folder
		}
	}
	t.Fatal("every folder of the host is in memory")
	return ""
}

// wantFile wants the token to be for its owner alone.
func (m other) wantFile(t *testing.T) {
	t.Helper()
	info := check(m.Stat(sinkFile))(t)
	user := check(m.User("openbao"))(t)
	if owner := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || int(owner.Uid) != user.UID || int(owner.Gid) != user.GID {
		t.Errorf("%v, %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
}

// wantPowers wants a token to read its secret and to look itself up, and to sign nothing.
func (m other) wantPowers(ctx context.Context, t *testing.T, token string) {
	t.Helper()
	client := m.lab.client(t, token)
	if _, err := client.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		t.Errorf("look up: %v", err)
	}
	if secret, err := client.Logical().ReadWithContext(ctx, sinkSecret); err != nil || secret == nil {
		t.Errorf("read the secret: %v", err)
	}
	for _, path := range []string{"pki_int/sign/" + m.Name + ".server", world.ClientsPath + "/sign/" + m.Name + ".client", "auth/tpm/host/x"} {
		if _, err := client.Logical().WriteWithContext(ctx, path, map[string]any{"csr": "x"}); !denied(err) {
			t.Errorf("write %s: %v", path, err)
		}
	}
}

func denied(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == 403
}
