// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// A machine is a host of one test with one service of Keylime on it.
type machine struct {
	*world.Host
	lab          *lab
	names        world.HostNames
	certificates []world.Certificate
	service      string // verifier or agent: the certificate's name
	address      string // where the service serves it
}

// add makes a host with a TPM and names of its own, enrolled, with Keylime's files
// for one service. Nothing of Keylime runs.
func (l *lab) add(ctx context.Context, t *testing.T, name string, service world.Component) *machine {
	t.Helper()
	l.hosts++
	address := fmt.Sprintf("10.10.2.%d", 100+l.hosts)
	h := check(l.World.AddHost(ctx, name, address))(t)
	own := name + ".keylime." + world.Domain
	m := &machine{
		Host: h, lab: l, service: string(service),
		names: world.HostNames{Host: name, Server: []string{own}, Client: []string{own}, Address: []string{address}},
	}
	switch service {
	case world.Verifier:
		m.address, m.certificates = address+":8881", verifierCertificates(own, address)
	case world.Tenant:
		m.certificates = world.SpireCertificates()[3:]
		m.certificates[0].CommonName = own
	default:
		m.address, m.certificates = address+":9002", agentCertificates(own, address)
	}
	must(t, l.World.InstallKeylime(ctx, h, service))
	must(t, h.WriteAgentConfig(m.certificates))
	must(t, l.World.Bao.AllowNames(ctx, m.names))
	m.enrol(ctx, t)
	return m
}

func (m *machine) enrol(ctx context.Context, t *testing.T) {
	t.Helper()
	id := check(m.Identify(ctx))(t)
	must(t, m.lab.World.Bao.Enrol(ctx, m.Name, id))
}

func verifierCertificates(name, address string) []world.Certificate {
	list := world.SpireCertificates()[:2]
	list[0].CommonName, list[1].CommonName = name, name
	list[0].IP = []string{address, "127.0.0.1"}
	list[0].Service.Probe = address + ":8881"
	return list
}

func agentCertificates(name, address string) []world.Certificate {
	c := world.AgentCertificate(address)
	c.CommonName = name
	return []world.Certificate{c}
}

// renew runs omen-agent renew and wants this exit code.
func renew(ctx context.Context, t *testing.T, h *world.Host, code int) world.Result {
	t.Helper()
	return check(story.Renew(ctx, h, code))(t)
}

// agent runs omen-agent with these arguments.
func agent(ctx context.Context, t *testing.T, h *world.Host, args ...string) world.Result {
	t.Helper()
	return check(h.Run(ctx, "/usr/bin/omen-agent", append([]string{"--config", world.AgentConfig}, args...)...))(t)
}

// served is the certificate on the wire, its chain checked.
func (m *machine) served(ctx context.Context, t *testing.T) *x509.Certificate {
	t.Helper()
	return check(m.lab.World.Served(ctx, m.address))(t)
}

// wantServed wants the installed certificate on the wire.
func (m *machine) wantServed(ctx context.Context, t *testing.T) {
	t.Helper()
	m.wantLeaf(ctx, t, check(m.Installed(m.service))(t))
}

// wantLeaf wants this very certificate on the wire.
func (m *machine) wantLeaf(ctx context.Context, t *testing.T, leaf *x509.Certificate) {
	t.Helper()
	if now := m.served(ctx, t); !now.Equal(leaf) {
		t.Errorf("%s serves %x, not %x", m.address, now.SerialNumber, leaf.SerialNumber)
	}
}

// changeConfig replaces a text in agent.toml until the test ends.
func (m *machine) changeConfig(t *testing.T, old, changed string) {
	t.Helper()
	text := m.AgentTOML(m.certificates)
	bent := strings.ReplaceAll(text, old, changed)
	if bent == text {
		t.Fatalf("agent.toml does not hold %q:\n%s", old, text)
	}
	m.replaceFile(t, world.AgentConfig, []byte(bent))
}

// replaceFile gives a file another content, or makes it, until the test ends.
func (m *machine) replaceFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if !m.Exists(name) {
		must(t, m.WriteFile(name, content, 0o644))
		t.Cleanup(func() { check(m.Must(context.Background(), "rm", name))(t) })
		return
	}
	info := check(m.Stat(name))(t)
	owner := info.Sys().(*syscall.Stat_t)
	old := check(m.ReadFile(name))(t)
	write := func(text []byte) {
		must(t, m.WriteFileAs(name, text, info.Mode(), int(owner.Uid), int(owner.Gid)))
	}
	write(content)
	t.Cleanup(func() { write(old) })
}

// listing is what stands below paths of a host: mode, owner and content of each.
type listing map[string]string

// installed lists all that an installation may touch. The agent's own record is
// named only: it says when the last attempt was.
func installed(t *testing.T, h *world.Host) listing {
	t.Helper()
	all := listing{}
	for _, root := range []string{"/etc/keylime", "/etc/omen-agent", "/var/lib/omen-agent", "/run/omen-agent"} {
		all.walk(t, h, root)
	}
	return all
}

func (l listing) walk(t *testing.T, h *world.Host, name string) {
	t.Helper()
	info, err := h.Lstat(name)
	if err != nil {
		return
	}
	owner := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
	switch {
	case info.IsDir():
		for _, entry := range check(h.ReadDir(name))(t) {
			l.walk(t, h, path.Join(name, entry.Name()))
		}
	case info.Mode().Type() != 0:
		line += " -> " + check(h.Readlink(name))(t)
	case !strings.HasPrefix(name, "/var/lib/omen-agent/state/"):
		line += fmt.Sprintf(" %x", sha256.Sum256(check(h.ReadFile(name))(t)))
	}
	l[name] = line
}

// wantSame wants a listing not to have changed.
func wantSame(t *testing.T, before, after listing) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("changed on disk (- before, + after):\n%s", diff)
	}
}

// generation is the number of the set that is current.
func generation(t *testing.T, h *world.Host) string {
	t.Helper()
	return check(h.Readlink("/var/lib/omen-agent/keylime/current"))(t)
}
