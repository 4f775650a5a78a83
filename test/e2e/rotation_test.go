// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// A turn is two CAs that are replaced: that of the servers, a root with an
// intermediate in mounts of their own, and that of the clients, a root alone.
type turn struct {
	*lab
	verifier, tenant *machine
	roots            [2][]byte // of the servers: the old and the new
	intermediates    [2][]byte
	issuers          [2]string // the intermediates' names in their mount
	clients          [2][]byte // roots of the clients
}

const (
	turnRoot, turnInt, turnClients = "pki_turn_root", "pki_turn", "pki_turn_clients"
	serversFile                    = "/etc/omen-agent/servers-ca.pem"
)

var generations = [2]string{"first", "second"}

// TestRotation replaces both CAs as docs/operations.md says: new roots everywhere,
// then leaves of the new CAs, then the old roots go. Judges are a real verifier and
// Keylime's own client.
func TestRotation(t *testing.T) {
	ctx, l := shared(t)
	c := newTurn(ctx, t, l)
	c.trust(t, 0)
	renew(ctx, t, c.verifier.Host, 0)
	renew(ctx, t, c.tenant.Host, 0)
	c.wantAccepted(ctx, t, 0)
	c.makeSecond(ctx, t)
	c.wantRefused(ctx, t, 1) // before the verifier knows it

	c.trust(t, 0, 1)
	renew(ctx, t, c.verifier.Host, 0)
	renew(ctx, t, c.tenant.Host, 0)
	c.wantIssuers(t, 0, 0)

	c.issueFrom(ctx, t, turnClients, generations[1])
	renew(ctx, t, c.tenant.Host, 0) // the verifier was renewed only once
	c.wantIssuers(t, 0, 1)
	c.wantAccepted(ctx, t, 1)
	c.issueFrom(ctx, t, turnInt, c.issuers[1])
	renew(ctx, t, c.verifier.Host, 0) // the tenant's host has the new intermediate since before
	c.wantIssuers(t, 1, 1)
	c.talks(ctx, t)

	c.issueFrom(ctx, t, turnClients, generations[0]) // the way back is open
	renew(ctx, t, c.tenant.Host, 0)
	c.wantIssuers(t, 1, 0)
	c.wantAccepted(ctx, t, 0)
	c.issueFrom(ctx, t, turnClients, generations[1])
	renew(ctx, t, c.tenant.Host, 0)

	c.trust(t, 1)
	renew(ctx, t, c.verifier.Host, 0)
	renew(ctx, t, c.tenant.Host, 0)
	c.talks(ctx, t)
	c.wantRefused(ctx, t, 0)
}

// newTurn makes the first CAs, and two hosts that have their certificates from
// them: a verifier, and one from which people work.
func newTurn(ctx context.Context, t *testing.T, l *lab) *turn {
	t.Helper()
	c := &turn{lab: l, verifier: l.add(ctx, t, "turn", world.Verifier), tenant: l.add(ctx, t, "desk", world.Tenant)}
	for _, mount := range []string{turnRoot, turnInt, turnClients} {
		l.write(ctx, t, "sys/mounts/"+mount, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
	}
	c.makeCAs(ctx, t, 0, "generate")
	policies := map[string]string{}
	for path, source := range map[string]string{
		turnInt + "/roles/turn.server": "pki_int/roles/turn.server", turnClients + "/roles/turn.client": world.ClientsPath + "/roles/turn.client",
		turnClients + "/roles/desk.client": world.ClientsPath + "/roles/desk.client",
	} {
		l.write(ctx, t, path, l.read(ctx, t, source))
		host, _, _ := strings.Cut(strings.SplitAfter(path, "/roles/")[1], ".")
		policies[host] += "path \"" + strings.Replace(path, "/roles/", "/sign/", 1) + "\" { capabilities = [\"update\"] }\n"
	}
	for _, m := range []*machine{c.verifier, c.tenant} {
		l.write(ctx, t, "sys/policies/acl/omen-host-"+m.Name, map[string]any{"policy": policies[m.Name]})
		text := strings.NewReplacer(`"pki_int"`, `"`+turnInt+`"`, `"`+world.ClientsPath+`"`, `"`+turnClients+`"`,
			"\nclient_ca", "\nserver_ca = \""+serversFile+"\"\nclient_ca").Replace(m.AgentTOML(m.certificates))
		must(t, m.WriteFile(world.AgentConfig, []byte(text), 0o644))
	}
	return c
}

func (c *turn) makeSecond(ctx context.Context, t *testing.T) { c.makeCAs(ctx, t, 1, "rotate") }

// makeCAs makes the CAs of one generation. They issue nothing unless they are the
// first in their mounts.
func (c *turn) makeCAs(ctx context.Context, t *testing.T, n int, act string) {
	t.Helper()
	request := func(name string) map[string]any {
		return map[string]any{"common_name": name + " " + generations[n], "issuer_name": generations[n], "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
	}
	c.roots[n] = c.certificate(ctx, t, turnRoot+"/root/"+act+"/internal", request("Root"))
	c.clients[n] = c.certificate(ctx, t, turnClients+"/root/"+act+"/internal", request("Clients"))
	csr := check(c.World.Bao.Write(ctx, turnInt+"/intermediate/generate/internal", map[string]any{"common_name": "Intermediate " + generations[n], "key_type": "ec", "key_bits": 256}))(t)
	c.intermediates[n] = c.certificate(ctx, t, turnRoot+"/issuer/"+generations[n]+"/sign-intermediate", map[string]any{
		"csr": csr.Data["csr"], "common_name": "Intermediate " + generations[n], "ttl": "4380h", "max_path_length": 0,
	})
	set := check(c.World.Bao.Write(ctx, turnInt+"/intermediate/set-signed", map[string]any{"certificate": string(c.intermediates[n])}))(t)
	imported, _ := set.Data["imported_issuers"].([]any)
	if len(imported) != 1 {
		t.Fatalf("imported %v", set.Data)
	}
	c.issuers[n], _ = imported[0].(string)
}

func (c *turn) certificate(ctx context.Context, t *testing.T, path string, data map[string]any) []byte {
	t.Helper()
	answer := check(c.World.Bao.Write(ctx, path, data))(t)
	text, _ := answer.Data["certificate"].(string)
	return []byte(text + "\n")
}

// issueFrom has a mount issue from another of its CAs.
func (c *turn) issueFrom(ctx context.Context, t *testing.T, mount, issuer string) {
	t.Helper()
	c.write(ctx, t, mount+"/config/issuers", map[string]any{"default": issuer})
}

// trust gives both hosts the roots of these generations, and the intermediates that
// agents do not send.
func (c *turn) trust(t *testing.T, which ...int) {
	t.Helper()
	files := map[string][]byte{}
	for _, n := range which {
		files[world.AnchorFile] = append(files[world.AnchorFile], c.roots[n]...)
		files[world.ClientsAnchorFile] = append(files[world.ClientsAnchorFile], c.clients[n]...)
		files[serversFile] = append(files[serversFile], slices.Concat(c.intermediates[n], c.roots[n])...)
	}
	for name, text := range files {
		for _, m := range []*machine{c.verifier, c.tenant} {
			must(t, m.WriteFile(name, text, 0o644))
		}
	}
}

// talks has Keylime's own client ask the verifier for its list.
func (c *turn) talks(ctx context.Context, t *testing.T) {
	t.Helper()
	result := check(c.tenant.KeylimeTenant(ctx, "-c", "cvlist", "-v", c.verifier.IP, "-vp", "8881"))(t)
	if !strings.Contains(result.Stdout, `"uuids"`) {
		t.Errorf("keylime_tenant says:\n%s%s", result.Stdout, result.Stderr)
	}
}

// wantIssuers wants the installed leaves to come from the CAs of these generations.
func (c *turn) wantIssuers(t *testing.T, server, client int) {
	t.Helper()
	if got := check(c.verifier.Installed("verifier"))(t).Issuer.CommonName; got != "Intermediate "+generations[server] {
		t.Errorf("the verifier's certificate is of %s", got)
	}
	if got := check(c.tenant.Installed("tenant"))(t).Issuer.CommonName; got != "Clients "+generations[client] {
		t.Errorf("the tenant's certificate is of %s", got)
	}
}

func (c *turn) wantRefused(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	err := c.handshake(ctx, t, n)
	for range 20 { // a reset can overtake the alert
		if !errors.Is(err, syscall.ECONNRESET) {
			break
		}
		err = c.handshake(ctx, t, n)
	}
	if err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("a client of the %s CA: %v", generations[n], err)
	}
}

func (c *turn) wantAccepted(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	if err := c.handshake(ctx, t, n); err != nil {
		t.Errorf("a client of the %s CA: %v", generations[n], err)
	}
}

// handshake is what the verifier says to a fresh client certificate of a generation.
func (c *turn) handshake(ctx context.Context, t *testing.T, n int) error {
	t.Helper()
	answer := check(c.World.Bao.Write(ctx, turnClients+"/issuer/"+generations[n]+"/issue/desk.client", map[string]any{
		"common_name": c.tenant.names.Client[0], "ttl": "1h",
	}))(t)
	certificate, _ := answer.Data["certificate"].(string)
	key, _ := answer.Data["private_key"].(string)
	client := check(tls.X509KeyPair([]byte(certificate), []byte(key)))(t)
	dialer := &tls.Dialer{Config: &tls.Config{
		MinVersion:           tls.VersionTLS12,
		InsecureSkipVerify:   true, //nolint:gosec // the question is what the server says of the client
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
	}}
	conn, err := dialer.DialContext(ctx, "tcp", c.verifier.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	// In TLS 1.3 the server judges the certificate after the client is done.
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	// Where it has judged already, the request meets a closed door, and its word is
	// there to be read all the same.
	_, _ = io.WriteString(conn, "GET /version HTTP/1.0\r\n\r\n")
	_, err = conn.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the verifier says nothing")
	}
	return err
}
