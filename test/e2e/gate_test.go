// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// TestVersionGate: an agent older than rust-keylime 0.2.9 would fail every quote
// with an EC key, so that it is not given one. The stand-in claims what the
// versions claim.
func TestVersionGate(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "gate", world.Agent)
	const unknown, old = "agent cannot use an EC key: its version is not known", "agent cannot use an EC key"
	for _, row := range []struct {
		name, versions, declared, says string
	}{
		{"0.2.8 answers", "2.2", "", old},
		{"0.2.8 answers, another is declared", "2.2", "0.2.9", old},
		{"0.2.8 is declared, mTLS is on", "mtls", "0.2.8", old},
		{"unknown, mTLS is on", "mtls", "", unknown},
		{"answers without a number", "none", "", old},
		{"does not run", "", "", unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			m.declare(t, row.declared)
			before := files(t, m.Host)
			process := m.startAgent(ctx, t, row.versions)
			badInput{code: 7, step: "install", says: row.says, hint: "0.2.9"}.judge(t, agent(ctx, t, m.Host, "renew"))
			m.wantUntouched(ctx, t, before, process)
		})
	}
	t.Run("0.2.9 answers", func(t *testing.T) {
		m.declare(t, "")
		process := m.startAgent(ctx, t, "2.1,2.2,2.3,2.4,2.5")
		renew(ctx, t, m.Host, 0)
		m.wantServed(ctx, t)
		select {
		case <-process.Ended():
		default:
			t.Error("the agent of before runs still")
		}
	})
}

// declare configures agent_version, "" for none.
func (m *machine) declare(t *testing.T, version string) {
	t.Helper()
	m.certificates[0].AgentVersion = version
	must(t, m.WriteAgentConfig(m.certificates))
}

// startAgent starts the stand-in as people do before mTLS, with these API
// versions; "mtls" starts it as Keylime ships it; "" starts nothing.
func (m *machine) startAgent(ctx context.Context, t *testing.T, versions string) *world.Process {
	t.Helper()
	if versions == "" {
		return nil
	}
	plain, args := "true", []string{"--supported-version", versions}
	switch versions {
	case "mtls":
		plain, args = "false", nil
		m.selfSigned(ctx, t)
	}
	m.setMTLS(t, plain == "false")
	process := check(m.Start("/var/log/keylime/agent.log", "/usr/bin/keylime_agent", args...))(t)
	t.Cleanup(func() { must(t, process.Stop(5*time.Second)) })
	must(t, process.AwaitPort(ctx, m.address))
	return process
}

// setMTLS says in agent.conf whether the agent demands TLS.
func (m *machine) setMTLS(t *testing.T, on bool) {
	t.Helper()
	const name = "/etc/keylime/agent.conf"
	var lines []string
	for l := range strings.Lines(string(check(m.ReadFile(name))(t))) {
		if strings.HasPrefix(l, "enable_agent_mtls") {
			l = fmt.Sprintf("enable_agent_mtls = %v\n", on)
		}
		lines = append(lines, l)
	}
	must(t, m.WriteFile(name, []byte(strings.Join(lines, "")), 0o644))
}

// selfSigned makes the files that the agent makes for itself by default.
func (m *machine) selfSigned(ctx context.Context, t *testing.T) {
	t.Helper()
	check(m.Must(ctx, "sh", "-ec", `cd /var/lib/keylime && mkdir -p cv_ca
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=agent -keyout server-private.pem -out server-cert.crt 2>/dev/null
cp server-cert.crt cv_ca/cacert.crt
chown -R keylime .`))(t)
}

// wantUntouched wants nothing written and the agent as it was.
func (m *machine) wantUntouched(ctx context.Context, t *testing.T, before listing, process *world.Process) {
	t.Helper()
	after := files(t, m.Host)
	delete(after, "/etc/keylime/agent.conf") // the test writes that
	delete(before, "/etc/keylime/agent.conf")
	for name := range after {
		if before[name] == "" && strings.HasPrefix(name, "/var/lib/omen-agent") {
			delete(after, name)
		}
	}
	wantSame(t, before, after)
	if left := check(m.Must(ctx, "find", "/var/lib/omen-agent/keylime", "-mindepth", "1"))(t); left.Stdout != "" {
		t.Errorf("left: %s", left.Stdout)
	}
	if process == nil {
		return
	}
	select {
	case <-process.Ended():
		t.Error("the agent was ended")
	default:
	}
}

// TestPlainVersionIsAnswered: the stand-in answers as the real agents do, or
// the gate's test would prove nothing.
func TestPlainVersionIsAnswered(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "plain", world.Agent)
	for versions, want := range map[string]string{
		"2.2":     `"supported_version":"2.2"}`,
		"2.2,2.5": `"supported_version":"2.5","supported_versions":["2.2","2.5"]`,
	} {
		t.Run(versions, func(t *testing.T) {
			m.startAgent(ctx, t, versions)
			request := check(http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.address+"/version", nil))(t)
			response := check(http.DefaultClient.Do(request))(t)
			body := check(io.ReadAll(response.Body))(t)
			must(t, response.Body.Close())
			if !strings.Contains(string(body), want) {
				t.Errorf("%s does not hold %s", body, want)
			}
		})
	}
}
