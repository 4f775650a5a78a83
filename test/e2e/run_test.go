// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

const runLog = world.RunLog

// A daemon is omen-agent run on a host.
type daemon struct{ *world.Daemon }

// startRun starts omen-agent run, its log in runLog.
func startRun(ctx context.Context, t *testing.T, h *world.Host) *daemon {
	t.Helper()
	return &daemon{check(h.StartDaemon(ctx))(t)}
}

// terminate sends TERM and gives the exit code.
func (d *daemon) terminate(ctx context.Context, t *testing.T) int {
	t.Helper()
	return check(d.Terminate(ctx))(t)
}

func (d *daemon) signal(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	must(t, d.Signal(ctx, name))
}

// awaitLog waits until the log of omen-agent run holds a text.
func awaitLog(ctx context.Context, t *testing.T, h *world.Host, want string) {
	t.Helper()
	must(t, h.AwaitSaid(ctx, 30*time.Second, want))
}

// TestRun: the daemon renews at once when nothing is installed, not again when
// nothing is due, and ends well when it is told to.
func TestRun(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "run", world.Agent)

	d := startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, "msg=renewed host=run generation=1")
	m.wantServed(ctx, t)
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	leaf, logins := m.served(ctx, t), l.logins(t, "run")
	if logins == 0 {
		t.Error("the audit log has no login")
	}

	d = startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, `msg="certificates until `)
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	if got := generation(t, m.Host); got != "gen-000001" || l.logins(t, "run") != logins {
		t.Errorf("nothing was due, and now %s is current after %d logins", got, l.logins(t, "run"))
	}
	m.wantLeaf(ctx, t, leaf)
	leaf = m.reload(ctx, t)

	m.enrolAs(ctx, t, "0000000000000000000000000000000000000000000000000000000000000000")
	check(m.Must(ctx, "rm", "-r", "/var/lib/omen-agent/keylime/current"))(t)
	d = startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, `level=ERROR msg="refused; an operator has to change something"`)
	awaitLog(ctx, t, m.Host, "refused: boot-policy")
	awaitLog(ctx, t, m.Host, `remedy="this machine booted into a state that OpenBao does not accept`)
	m.tellsOnce(ctx, t, d)
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	m.wantLeaf(ctx, t, leaf)
}

// tellsOnce: an alarm that was told is not told again because the configuration is read.
func (m *machine) tellsOnce(ctx context.Context, t *testing.T, d *daemon) {
	t.Helper()
	const alarm, read = "msg=alarm event=alarm kind=not-installed", `msg="configuration read"`
	for range 2 { // the second is heard when what follows the first is done
		before := strings.Count(string(check(m.ReadFile(runLog))(t)), read)
		d.signal(ctx, t, "HUP")
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		must(t, world.Await(ctx, func(context.Context) error {
			text, err := m.ReadFile(runLog)
			if err == nil && strings.Count(string(text), read) == before {
				err = errors.New("the configuration is not read")
			}
			return err
		}))
	}
	if text := string(check(m.ReadFile(runLog))(t)); strings.Count(text, alarm) != 1 {
		t.Errorf("told %d times:\n%s", strings.Count(text, alarm), text)
	}
}

// reload has a daemon that runs read its configuration again: one that is wrong, and one
// that asks for fewer names.
func (m *machine) reload(ctx context.Context, t *testing.T) *x509.Certificate {
	t.Helper()
	d := startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, `msg="services may start"`)
	good := check(m.ReadFile(world.AgentConfig))(t)
	must(t, m.WriteFile(world.AgentConfig, append(slices.Clone(good), "nonsense = 1\n"...), 0o644))
	d.signal(ctx, t, "HUP")
	awaitLog(ctx, t, m.Host, "the configuration cannot be used; going on with the one before")
	fewer := bytes.Replace(good, []byte(`"localhost"`), nil, 1)
	if bytes.Equal(good, fewer) {
		t.Fatalf("no names to leave out of:\n%s", good)
	}
	must(t, m.WriteFile(world.AgentConfig, fewer, 0o644))
	d.signal(ctx, t, "HUP")
	awaitLog(ctx, t, m.Host, `cause="the configuration has changed"`)
	awaitLog(ctx, t, m.Host, "msg=renewed host=run generation=2")
	m.wantServed(ctx, t)
	leaf := m.served(ctx, t)
	if slices.Contains(leaf.DNSNames, "localhost") {
		t.Errorf("names are %v", leaf.DNSNames)
	}
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	return leaf
}

// enrolAs accepts another boot state than the machine has.
func (m *machine) enrolAs(ctx context.Context, t *testing.T, digest string) {
	t.Helper()
	id := check(m.Identify(ctx))(t)
	id.PCRDigest = digest
	must(t, m.lab.World.Bao.Enrol(ctx, m.Name, id))
}

// logins counts the answered logins of a host in OpenBao's audit log.
func (l *lab) logins(t *testing.T, host string) int {
	t.Helper()
	count := 0
	for text := range strings.Lines(string(check(l.Spire.ReadFile(world.BaoAudit))(t))) {
		var entry struct {
			Type string `json:"type"`
			Auth struct {
				DisplayName string `json:"display_name"`
			} `json:"auth"`
			Request struct{ Path string } `json:"request"`
		}
		must(t, json.Unmarshal([]byte(text), &entry))
		if entry.Type == "response" && entry.Request.Path == "auth/tpm/login" && strings.HasSuffix(entry.Auth.DisplayName, host) {
			count++
		}
	}
	return count
}

// status is what omen-agent --output json status prints.
type status struct {
	Host         string                       `json:"host"`
	Generation   int                          `json:"generation"`
	LastSuccess  time.Time                    `json:"last_success"`
	NextRenewal  time.Time                    `json:"next_renewal"`
	Failure      *struct{ Step, Rule string } `json:"failure"`
	Certificates []struct {
		Name, Serial, Service string
		NotAfter              time.Time `json:"not_after"`
	} `json:"certificates"`
}

// TestStatusAndVerify asks before there is anything, when all is well, and when
// the service is gone.
func TestStatusAndVerify(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "status", world.Agent)

	want := map[string]int{"status": 0, "verify": 8}
	for command, code := range want {
		if got := agent(ctx, t, m.Host, command); got.Code != code || !strings.Contains(got.Stdout+got.Stderr, "not installed") {
			t.Errorf("before the first renewal %s says, with code %d:\n%s%s", command, got.Code, got.Stdout, got.Stderr)
		}
	}
	renew(ctx, t, m.Host, 0)
	leaf := check(m.Installed("agent"))(t)
	m.wantStatus(ctx, t, leaf.NotAfter)
	if got := agent(ctx, t, m.Host, "verify"); got.Code != 0 || strings.Contains(got.Stdout, "WRONG") || strings.Count(got.Stdout, "ok  ") < 4 {
		t.Errorf("all is well, and verify says, with code %d:\n%s%s", got.Code, got.Stdout, got.Stderr)
	}

	m.stopService(ctx, t)
	before := installed(t, m.Host)
	got := agent(ctx, t, m.Host, "verify")
	badInput{code: 8, step: "probe agent", says: "not everything that is installed is served"}.judge(t, got)
	if !strings.Contains(got.Stdout, "WRONG  agent  installed certificate is served") || !strings.Contains(got.Stdout, "ok     agent  installed ") {
		t.Errorf("verify says:\n%s", got.Stdout)
	}
	wantSame(t, before, installed(t, m.Host))
	m.wantStatus(ctx, t, leaf.NotAfter)

	renew(ctx, t, m.Host, 0)
	if got := agent(ctx, t, m.Host, "verify"); got.Code != 0 {
		t.Errorf("after another renewal verify says, with code %d:\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
}

// stopService ends the service as people do.
func (m *machine) stopService(ctx context.Context, t *testing.T) {
	t.Helper()
	pid := strings.TrimSpace(string(check(m.ReadFile("/run/omen-agent/" + m.service + ".pid"))(t)))
	check(m.Must(ctx, "kill", "-TERM", pid))(t)
	must(t, world.Await(ctx, func(ctx context.Context) error {
		if _, err := m.lab.World.Served(ctx, m.address); err == nil {
			return errors.New("it serves still")
		}
		return nil
	}))
}

// wantStatus wants one certificate, valid until then, after a good renewal.
func (m *machine) wantStatus(ctx context.Context, t *testing.T, until time.Time) {
	t.Helper()
	var s status
	must(t, json.Unmarshal([]byte(agent(ctx, t, m.Host, "--output", "json", "status").Stdout), &s))
	if s.Host != m.Name || s.Generation < 1 || s.LastSuccess.IsZero() || s.Failure != nil || len(s.Certificates) != 1 {
		t.Errorf("status is %+v", s)
		return
	}
	c := s.Certificates[0]
	if c.Name != "agent" || c.Serial == "" || c.Service != "/usr/bin/keylime_agent" || !c.NotAfter.Equal(until) {
		t.Errorf("status of the certificate is %+v", c)
	}
	if !s.NextRenewal.After(time.Now()) || !s.NextRenewal.Before(until) {
		t.Errorf("next renewal %v", s.NextRenewal)
	}
	text := agent(ctx, t, m.Host, "status").Stdout
	for _, word := range []string{"host          " + m.Name, "generation", "serial " + c.Serial, "last renewal", "next renewal"} {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in:\n%s", word, text)
		}
	}
}

// TestOneCertificate renews one of four; the others are carried over byte for
// byte, and only what reads the new one restarts.
func TestOneCertificate(t *testing.T) {
	ctx, l := shared(t)
	for _, row := range []struct {
		name      string
		restarted []string
	}{
		{"tenant", nil},
		{"registrar", []string{"keylime-registrar"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, pids := set(t, l.Spire), servicePids(t, l.Spire)
			o := renewJSON(ctx, t, l.Spire, "--certificate", row.name)
			if !slices.Equal(o.Renewed, []string{row.name}) || !slices.Equal(o.Restarted, row.restarted) {
				t.Errorf("renewed %v, restarted %v", o.Renewed, o.Restarted)
			}
			var changed []string
			for name, after := range set(t, l.Spire) {
				if before[name] != after {
					changed = append(changed, name)
				}
			}
			slices.Sort(changed)
			if want := []string{".omen-manifest", row.name + ".crt", row.name + ".key", row.name + ".sealed"}; !slices.Equal(changed, want) {
				t.Errorf("changed are %v, not %v", changed, want)
			}
			if row.restarted == nil && !maps.Equal(pids, servicePids(t, l.Spire)) {
				t.Error("a service was restarted for a certificate that it does not read")
			}
			for _, e := range l.Endpoints()[:2] {
				if leaf := check(l.World.Served(ctx, e.Address))(t); !leaf.Equal(check(l.Spire.Installed(e.Name))(t)) {
					t.Errorf("%s serves %x", e.Name, leaf.SerialNumber)
				}
			}
		})
	}
	before := installed(t, l.Spire)
	badInput{code: 2, step: "--certificate", says: `no certificate "absent"`, hint: "[[certificate]]"}.judge(t,
		agent(ctx, t, l.Spire, "renew", "--certificate", "absent"))
	wantSame(t, before, installed(t, l.Spire))
}

// set is what is in the certificate folder.
func set(t *testing.T, h *world.Host) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, entry := range check(h.ReadDir(world.CertsDir))(t) {
		files[entry.Name()] = string(check(h.ReadFile(world.CertsDir + "/" + entry.Name()))(t))
	}
	return files
}

func servicePids(t *testing.T, h *world.Host) map[string]string {
	t.Helper()
	pids := map[string]string{}
	for _, name := range []string{"verifier", "registrar"} {
		pids[name] = string(check(h.ReadFile("/run/omen-agent/" + name + ".pid"))(t))
	}
	return pids
}
