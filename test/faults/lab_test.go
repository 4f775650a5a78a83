// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) { world.Main(m.Run) }

// A lab is a world with an OpenBao, whose hosts reach it by a line each.
type lab struct {
	*story.Story
	pair  tls.Certificate // OpenBao's own
	roots *x509.CertPool  // who vouches for it
	hosts int
}

// newLab starts OpenBao, and hosts of these names that have renewed once.
func newLab(t *testing.T, longest time.Duration, names ...string) (context.Context, *lab, []*machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), longest)
	l := &lab{Story: &story.Story{}}
	t.Cleanup(func() {
		if t.Failed() && l.World != nil {
			t.Log(l.World.Logs(15))
		}
		cancel()
		must(t, l.Close())
	})
	for _, step := range story.Steps()[:2] {
		if _, err := step.Run(ctx, l.Story); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
	}
	l.knockable(t)
	certificate := check(l.Spire.ReadFile("/etc/openbao/tls.crt"))(t)
	l.pair = check(tls.X509KeyPair(certificate, check(l.Spire.ReadFile("/etc/openbao/tls.key"))(t)))(t)
	l.roots = x509.NewCertPool()
	l.roots.AppendCertsFromPEM(check(l.Spire.ReadFile(world.BaoCAFile))(t))
	var all []*machine
	for _, name := range names {
		all = append(all, l.add(ctx, t, name))
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, m := range all { // a host that comes rewrites what all of them call OpenBao
		m.connect(t)
		group.Go(func() error { _, err := story.Renew(ctx, m.Host, 0); return err })
	}
	must(t, group.Wait())
	return ctx, l, all
}

// knockable is where Keylime's registrar would be: before the agent restarts it is looked
// whether somebody is there, and nothing is said.
func (l *lab) knockable(t *testing.T) {
	t.Helper()
	listener := check((&net.ListenConfig{}).Listen(t.Context(), "tcp", world.SpireIP+":8890"))(t)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_ = connection.Close()
		}
	}()
}

// web is a certificate beside Keylime's: a second signature, and a second set.
const web = `
[[certificate]]
name        = "web"
profile     = "general"
usage       = "server"
common_name = %q
key         = "sealed"
[certificate.files]
folder = "/etc/web/omen"
`

// add makes a host with a TPM of its own, enrolled, with the files of Keylime's agent.
func (l *lab) add(ctx context.Context, t *testing.T, name string) *machine {
	t.Helper()
	l.hosts++
	h := check(l.World.AddHost(ctx, name, fmt.Sprintf("10.10.2.%d", 100+l.hosts)))(t)
	own := name + ".keylime." + world.Domain
	c := world.AgentCertificate(h.IP)
	c.CommonName = own
	m := &machine{Host: h, lab: l, ttl: "24h", lead: newLead(t, h)}
	m.config = strings.Replace(h.AgentTOML([]world.Certificate{c}), h.TPM.Device(), m.lead.device(), 1) + fmt.Sprintf(web, "web."+own)
	m.line = newLine(t, l, fmt.Sprintf("10.10.3.%d", l.hosts))
	must(t, l.World.InstallKeylime(ctx, h, world.Agent))
	must(t, h.WriteFile(world.AgentConfig, []byte(m.config), 0o644))
	must(t, l.World.Bao.AllowNames(ctx, world.HostNames{Host: name, Server: []string{own, "web." + own}, Address: []string{h.IP}}))
	must(t, l.World.Bao.Enrol(ctx, name, check(h.Identify(ctx))(t)))
	l.World.Watch(h, world.RunLog)
	return m
}

// connect gives OpenBao's name the address of this host's line.
func (m *machine) connect(t *testing.T) {
	t.Helper()
	hosts := string(check(m.ReadFile("/etc/hosts"))(t))
	bent := strings.Replace(hosts, world.SpireIP+" ", m.line.ip+" ", 1)
	if bent == hosts {
		t.Fatalf("no %s in:\n%s", world.SpireIP, hosts)
	}
	must(t, m.WriteFile("/etc/hosts", []byte(bent), 0o644))
}

// keptTokens counts the tokens that OpenBao keeps for the hosts.
func (l *lab) keptTokens(ctx context.Context, t *testing.T) (count int) {
	t.Helper()
	admin := check(l.World.Bao.Admin(ctx))(t)
	list := check(admin.Logical().ListWithContext(ctx, "auth/token/accessors"))(t)
	for _, accessor := range list.Data["keys"].([]any) {
		token := check(admin.Auth().Token().LookupAccessorWithContext(ctx, accessor.(string)))(t)
		if strings.HasPrefix(token.Data["path"].(string), "auth/tpm/") {
			count++
		}
	}
	return count
}

// base is the last part of a path.
func base(name string) string { return path.Base(strings.TrimSpace(name)) }

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check is must for a call with a result: check(h.ReadFile(path))(t).
func check[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return value
	}
}
