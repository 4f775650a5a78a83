// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/test/world"
)

// A party is a host with what it may be called.
type party struct {
	host  *world.Host
	names world.HostNames
	dns   []string // its own, for servers
	ip    string
}

func newParty(h *world.Host, names world.HostNames) party {
	return party{host: h, names: names, dns: names.Server, ip: names.Address[0]}
}

// TestHostBoundary: a host that has proven itself tries every way to a
// certificate with another host's name or address, against the real server.
// Two of the hosts have names that begin as a third one's does.
func TestHostBoundary(t *testing.T) {
	ctx, l := shared(t)
	spire, auth := newParty(l.Spire, world.StoryNames()[0]), newParty(l.Auth, world.StoryNames()[1])
	short, long := l.add(ctx, t, "spi", world.Agent), l.add(ctx, t, "spire2", world.Agent)
	// Names around another host's: below it, beginning as it, ending as it.
	long.names.Server = append(long.names.Server, "x.verifier.keylime.funlab.casa", "verifier.keylime.funlab.cas", "er.keylime.funlab.casa")
	must(t, l.World.Bao.AllowNames(ctx, long.names))
	spi, spire2 := newParty(short.Host, short.names), newParty(long.Host, long.names)
	for _, row := range []struct{ attacker, victim party }{
		{auth, spire}, {spi, spire}, {spire2, spire}, {spi, spire2}, {spire2, spi}, {spire, spire2},
	} {
		t.Run(row.attacker.host.Name+" as "+row.victim.host.Name, func(t *testing.T) {
			a := &attack{lab: l, attacker: row.attacker, victim: row.victim, client: l.client(t, l.login(ctx, t, row.attacker.host)), usage: "server"}
			a.ownNames(ctx, t)
			a.otherPaths(ctx, t)
			a.askForMore(ctx, t)
			if len(row.attacker.names.Client) > 0 {
				a.usage = "client"
				a.askForMore(ctx, t)
			}
		})
	}
}

// An attack is one host's try to be another, with the token of its own login.
type attack struct {
	lab              *lab
	attacker, victim party
	client           *api.Client
	usage            string // of the PKI role that is asked: server or client
}

func (a *attack) path() string {
	mount := "pki_int"
	if a.usage == "client" {
		mount = world.ClientsPath
	}
	return mount + "/sign/" + a.attacker.host.Name + "." + a.usage
}

// ownNames shows that the way is open for what the host may be called.
func (a *attack) ownNames(ctx context.Context, t *testing.T) {
	t.Helper()
	csr := signed(t, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: a.attacker.dns[0]},
		DNSNames: append([]string{"localhost"}, a.attacker.dns...), IPAddresses: ips(a.attacker.ip, "127.0.0.1", "::1"),
	})
	leaf, err := a.ask(ctx, a.client, a.path(), map[string]any{"csr": csr, "ttl": "1h", "format": "pem"})
	if err != nil || leaf == nil {
		t.Fatalf("its own names: %v", err)
	}
	if len(leaf.DNSNames) != len(a.attacker.dns)+1 || len(leaf.IPAddresses) != 3 {
		t.Errorf("its own names: the certificate has %v %v", leaf.DNSNames, leaf.IPAddresses)
	}
}

// otherPaths are the ways that are not this host's.
func (a *attack) otherPaths(ctx context.Context, t *testing.T) {
	t.Helper()
	own, other := a.attacker.host.Name, a.victim.host.Name
	csr := signed(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: a.victim.dns[0]}, DNSNames: a.victim.dns, IPAddresses: ips(a.victim.ip)})
	for _, path := range []string{
		"pki_int/sign/" + other + ".server", "pki_int/sign/" + other + ".client", "pki_int/sign/" + other, "pki_int/sign/" + own,
		"pki_int/sign/" + own + ".server/../" + other + ".server", "pki_int/sign//" + other + ".server",
		"pki_int/issue/" + own + ".server", "pki_int/issue/" + other + ".server",
		"pki_int/sign/" + own + ".client", world.ClientsPath + "/sign/" + other + ".client", world.ClientsPath + "/sign/" + own + ".server", world.ClientsPath + "/sign/" + other + ".server",
		world.ClientsPath + "/issue/" + own + ".client", world.ClientsPath + "/sign-verbatim", world.ClientsPath + "/root/generate/exported",
		world.ClientsPath + "/issuer/default/sign/" + own + ".client", world.ClientsPath + "/roles/" + own + ".client",
		"pki_int/sign-verbatim", "pki_int/sign-verbatim/" + own + ".server", "pki_int/sign-verbatim/" + other + ".server",
		"pki_int/issuer/default/sign/" + own + ".server", "pki_int/issuer/default/sign/" + other + ".server",
		"pki_int/issuer/default/issue/" + other + ".server", "pki_int/issuer/default/sign-verbatim",
		"pki_int/root/sign-intermediate", "pki_int/root/sign-self-issued", "pki_int/issuer/default/sign-intermediate",
		"pki_int/root/generate/exported", "pki_int/intermediate/generate/exported", "pki_int/config/ca",
		"pki_root/sign/" + own + ".server", "pki_root/sign-verbatim", "pki_root/root/sign-intermediate", "pki_root/root/generate/exported",
		"pki_int/roles/" + own + ".server", "pki_int/roles/" + other + ".server",
		"sys/policies/acl/omen-host-" + own, "auth/tpm/host/" + own, "auth/tpm/host/" + other, "auth/tpm/config", "auth/tpm/role/keylime",
		"auth/token/create", "identity/entity-alias", "identity/entity", "sys/mounts/pki_own", "sys/raw/core", "sys/seal",
	} {
		leaf, err := a.ask(ctx, a.client, path, map[string]any{"csr": csr})
		if !isDenied(err) || leaf != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	leaf := check(a.lab.Spire.Installed("verifier"))(t)
	_, err := a.client.Logical().WriteWithContext(ctx, "pki_int/revoke", map[string]any{"serial_number": leaf.SerialNumber.String()})
	if !isDenied(err) {
		t.Errorf("revoke: %v", err)
	}
}

// askForMore asks the host's own role for what is not the host's.
func (a *attack) askForMore(ctx context.Context, t *testing.T) {
	t.Helper()
	a.parameters(ctx, t)
	requests, issued := a.requests(t), 0
	for _, request := range requests {
		if a.request(ctx, t, request) {
			issued++
		}
	}
	t.Logf("%s: %d of %d requests refused, the others stripped to its own names", a.usage, len(requests)-issued, len(requests))
}

// parameters ask for names beside an honest request: the policy lets none pass,
// and the role refuses them even to one whom no policy holds.
func (a *attack) parameters(ctx context.Context, t *testing.T) {
	t.Helper()
	csr := signed(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: a.attacker.dns[0]}, DNSNames: a.attacker.dns[:1]})
	admin := check(a.lab.World.Bao.Admin(ctx))(t)
	name, ip := a.victim.dns[0], a.victim.ip
	for _, bent := range []map[string]any{
		{"common_name": name}, {"alt_names": name}, {"alt_names": "*." + name}, {"alt_names": "root@" + name},
		{"common_name": name, "exclude_cn_from_sans": true}, {"ip_sans": ip}, {"ip_sans": "::ffff:" + ip},
		{"uri_sans": "spiffe://funlab.casa/" + a.victim.host.Name}, {"uri_sans": "https://" + name},
		{"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:" + name}, {"user_ids": name}, {"serial_number": name},
		{"ext_key_usage": "ClientAuth,ServerAuth"}, {"key_usage": "CertSign"}, {"use_pss": true}, {"not_after": "2099-01-01T00:00:00Z"},
	} {
		body := map[string]any{"csr": csr}
		maps.Copy(body, bent)
		if _, err := a.ask(ctx, a.client, a.path(), body); !isDenied(err) {
			t.Errorf("parameters %v: %v", bent, err)
		}
		leaf, err := a.ask(ctx, admin, a.path(), body)
		a.judge(t, bent, leaf, err)
	}
}

// request asks for what a CSR says. That is the role's to judge: the policy lets
// every CSR pass.
func (a *attack) request(ctx context.Context, t *testing.T, r csrRequest) (issued bool) {
	t.Helper()
	leaf, err := a.ask(ctx, a.client, a.path(), map[string]any{"csr": r.pem})
	if isDenied(err) {
		t.Errorf("%s: the policy refused, so the role was not asked: %v", r.name, err)
	}
	a.judge(t, r.name, leaf, err)
	return err == nil
}

// judge wants a refusal, or a certificate with nothing in it but the attacker's
// own names, and one usage.
func (a *attack) judge(t *testing.T, what any, leaf *x509.Certificate, err error) {
	t.Helper()
	if err != nil {
		var refused *api.ResponseError
		if !errors.As(err, &refused) || refused.StatusCode != 400 && refused.StatusCode != 403 {
			t.Errorf("%v: %v", what, err)
		}
		return
	}
	own, addresses, usage := append([]string{"localhost"}, a.attacker.dns...), []string{a.attacker.ip, "127.0.0.1", "::1"}, x509.ExtKeyUsageServerAuth
	if a.usage == "client" {
		own, addresses, usage = a.attacker.names.Client, nil, x509.ExtKeyUsageClientAuth
	}
	for _, name := range append([]string{leaf.Subject.CommonName}, leaf.DNSNames...) {
		if !slices.Contains(own, name) {
			t.Errorf("%v: the certificate has the name %q", what, name)
		}
	}
	for _, address := range leaf.IPAddresses {
		if !slices.Contains(addresses, address.String()) {
			t.Errorf("%v: the certificate has the address %s", what, address)
		}
	}
	if len(leaf.EmailAddresses)+len(leaf.URIs) > 0 || len(leaf.Subject.Names) > 1 || leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{usage}) || len(leaf.UnknownExtKeyUsage) > 0 {
		t.Errorf("%v: the certificate has more than a %s's names: %v %v %v %v", what, a.usage, leaf.Subject, leaf.EmailAddresses, leaf.URIs, leaf.ExtKeyUsage)
	}
	for _, kind := range nameKinds(t, leaf) {
		if kind != nameDNS && kind != nameIP {
			t.Errorf("%v: the certificate has a name of kind %d", what, kind)
		}
	}
}

// ask gives the certificate of an answer, nil where it holds none.
func (a *attack) ask(ctx context.Context, client *api.Client, path string, body map[string]any) (*x509.Certificate, error) {
	secret, err := client.Logical().WriteWithContext(ctx, path, body)
	if err != nil || secret == nil {
		return nil, err
	}
	text, _ := secret.Data["certificate"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("an answer without a certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func isDenied(err error) bool {
	var refused *api.ResponseError
	return errors.As(err, &refused) && refused.StatusCode == 403
}

// signed is a PEM request for a template, over a key of its own.
func signed(t *testing.T, template x509.CertificateRequest) string {
	t.Helper()
	key := check(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	der := check(x509.CreateCertificateRequest(rand.Reader, &template, key))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func ips(list ...string) []net.IP {
	var out []net.IP
	for _, text := range list {
		out = append(out, net.ParseIP(text))
	}
	return out
}

// decode passes a value through JSON into another.
func decode(t *testing.T, from, into any) {
	t.Helper()
	must(t, json.Unmarshal(check(json.Marshal(from))(t), into))
}
