// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/tls"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

// wantBundles compares the two CA files with what these CAs are, in any order.
func (h *host) wantBundles(servers, clients []byte) {
	h.t.Helper()
	for name, want := range map[string][]byte{keylime.BundleFile: servers, keylime.ClientsBundleFile: clients} {
		if diff := cmp.Diff(blocks(string(want)), blocks(h.read(certs+"/"+name))); diff != "" {
			h.t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// blocks are the PEM blocks of a text, sorted.
func blocks(text string) []string {
	list := strings.SplitAfter(strings.TrimSpace(text), "-----END CERTIFICATE-----\n")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	slices.Sort(list)
	return list
}

// otherTrust expects that a renewal would write other CA files, or none.
func (h *host) otherTrust(want bool, items []Item) {
	h.t.Helper()
	before := h.snapshot("var/lib/omen-agent")
	if got, err := h.installer.OtherTrust(withoutPairs(items)); err != nil || got != want {
		h.t.Errorf("other CAs: %v, %v", got, err)
	}
	if diff := cmp.Diff(before, h.snapshot("var/lib/omen-agent")); diff != "" {
		h.t.Errorf("a look changes:\n%s", diff)
	}
}

// withoutPairs is what is configured, and nothing that was issued.
func withoutPairs(items []Item) []Item {
	bare := slices.Clone(items)
	for i := range bare {
		bare[i].Chain, bare[i].Key = nil, nil
	}
	return bare
}

func (h *host) checkAll(items []Item) {
	h.t.Helper()
	for _, finding := range h.installer.Verify(h.t.Context(), items) {
		if finding.Err != nil {
			h.t.Errorf("%s: %s: %v", finding.Certificate, finding.Check, finding.Err)
		}
	}
}

// asked is what a service says to a client certificate of a CA.
func (h *host) asked(profile string, ca *testca.CA) error {
	h.t.Helper()
	chain, key := ca.Issue(h.t, testca.Want{Name: "somebody.test", Usages: testca.Client()})
	client, err := tls.X509KeyPair(chain, key)
	h.must(err)
	own, err := keypair.ParseCertificates([]byte(h.read(certs + "/" + strings.TrimPrefix(profile, "keylime-") + ".crt")))
	h.must(err)
	known, _ := keylime.Find(profile)
	target := probe.Target{Address: h.service("", known).Probe, Leaf: own[0], Bundle: []byte(h.read(certs + "/ca.crt"))}
	return probe.Server(h.t.Context(), target, &client)
}

func TestClientsWithACAOfTheirOwn(t *testing.T) {
	h := newHost(t)
	h.clients = testca.NewSmall(t, "clients")
	h.must(h.renew(h.all()...))
	h.wantBundles(h.ca.Bundle(), h.clients.RootPEM)
	h.checkAll(h.all())
	for _, profile := range []string{keylime.Verifier, keylime.Registrar} {
		if err := h.asked(profile, h.clients); err != nil {
			t.Errorf("%s and a client of the clients' CA: %v", profile, err)
		}
		if err := h.asked(profile, h.ca); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
			t.Errorf("%s and a client of the servers' CA: %v", profile, err)
		}
	}
}

// A certificate that is carried over is known by what it was known by, and by the
// anchors of now.
func TestCarriedCertificateKeepsItsCA(t *testing.T) {
	h := newHost(t)
	h.must(h.renew(h.all()...))
	h.clients = testca.NewSmall(t, "clients")
	items := h.all()
	for i := range items {
		items[i].CA = h.ca.RootPEM
		if known, _ := keylime.Find(items[i].Profile); known.OwnBundle() == keylime.ClientsBundleFile {
			items[i].CA = h.clients.RootPEM
		}
	}
	h.must(h.renew(carried(items, "tenant")...))
	h.wantBundles(h.ca.Bundle(), append(h.ca.Bundle(), h.clients.RootPEM...))
	h.checkAll(items)

	h.must(h.renew(carried(items, "registrar")...)) // and again: the tenant's is not forgotten
	h.wantBundles(h.ca.Bundle(), append(h.ca.Bundle(), h.clients.RootPEM...))
	h.must(h.renew(h.all()...))
	h.wantBundles(h.ca.Bundle(), h.clients.RootPEM)
}

// A CA file that changed concerns those that read it and nobody else.
func TestChangedBundleRestartsItsReaders(t *testing.T) {
	h := newHost(t)
	h.clients = testca.NewSmall(t, "clients")
	items := h.all()
	h.must(h.renew(items...))
	next := testca.New(t, "next")
	for _, row := range []struct {
		name     string
		change   func()
		services []string
	}{
		{"nothing", func() {}, nil},
		{"another CA of servers", func() { h.installer.Trust.Servers = next.Bundle() }, []string{keylime.Verifier}},
		{"another CA of clients", func() { h.installer.Trust.Clients = next.RootPEM }, []string{keylime.Registrar, keylime.Verifier}},
		{"roots in another order", func() {
			h.installer.Trust.Clients = append(slices.Clone(h.clients.RootPEM), next.RootPEM...)
			items[1].CA = append(slices.Clone(next.RootPEM), h.clients.RootPEM...)
		}, nil},
		{"a root less", func() { h.installer.Trust.Clients, items[1].CA = nil, h.clients.RootPEM }, []string{keylime.Registrar, keylime.Verifier}},
	} {
		row.change()
		items[3] = h.item("tenant", keylime.Tenant)
		change, err := h.installer.Install(t.Context(), carried(items, "tenant"))
		h.must(err)
		if got := change.Services(); !slices.Equal(got, row.services) {
			t.Errorf("%s: restarts %v, not %v", row.name, got, row.services)
		}
		h.must(change.Reload(t.Context()))
		h.must(change.Probe(t.Context()))
		h.must(change.Close())
	}
	h.wantBundles(append(h.ca.Bundle(), next.Bundle()...), h.clients.RootPEM)
}

// The agent's host has no client certificate, the tenant's none for servers.
func TestHostOfOneSide(t *testing.T) {
	small, book := testca.NewSmall(t, "clients"), testca.New(t, "servers")
	for name, row := range map[string]struct {
		trust            Trust
		profile          string
		servers, clients func(h *host) []byte
	}{
		"agent": {Trust{Clients: small.RootPEM}, keylime.Agent,
			func(h *host) []byte { return h.ca.Bundle() }, func(*host) []byte { return small.RootPEM }},
		"agent, one CA for all": {Trust{}, keylime.Agent, func(h *host) []byte { return h.ca.Bundle() }, func(h *host) []byte { return h.ca.Bundle() }},
		"tenant": {Trust{Servers: book.Bundle()}, keylime.Tenant,
			func(*host) []byte { return book.Bundle() }, func(h *host) []byte { return h.ca.Bundle() }},
		"tenant, one CA for all": {Trust{}, keylime.Tenant, func(h *host) []byte { return h.ca.Bundle() }, func(h *host) []byte { return h.ca.Bundle() }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.installer.Trust = row.trust
			item := h.item(strings.TrimPrefix(row.profile, "keylime-"), row.profile)
			h.must(h.renew(item))
			h.wantBundles(row.servers(h), row.clients(h))
			h.checkAll([]Item{item})
			h.must(h.renew(h.item(item.Name, row.profile)))
			h.wantBundles(row.servers(h), row.clients(h))
		})
	}
}

// Old and new roots first, then leaves of the new CA, then the new root alone.
func TestRotationInOrder(t *testing.T) {
	h := newHost(t)
	h.clients = testca.NewSmall(t, "clients")
	book, clients := h.ca, h.clients
	next, nextClients := testca.New(t, "next"), testca.NewSmall(t, "next clients")
	both := func(items []Item) []Item {
		for i := range items {
			items[i].CA = append(slices.Clone(book.RootPEM), next.RootPEM...)
			if known, _ := keylime.Find(items[i].Profile); known.OwnBundle() == keylime.ClientsBundleFile {
				items[i].CA = append(slices.Clone(clients.RootPEM), nextClients.RootPEM...)
			}
		}
		return items
	}
	h.must(h.renew(h.all()...))
	h.otherTrust(false, h.all())
	h.otherTrust(true, both(h.all()))
	if h.asked(keylime.Verifier, nextClients) == nil {
		t.Error("the new CA is known before it is announced")
	}
	h.installer.Trust.Servers = next.Bundle() // its intermediate: there are servers that do not send it
	h.must(h.renew(both(h.all())...))
	h.otherTrust(false, both(h.all()))
	h.wantBundles(append(book.Bundle(), next.Bundle()...), append(slices.Clone(clients.RootPEM), nextClients.RootPEM...))
	for _, ca := range []*testca.CA{clients, nextClients} {
		h.must(h.asked(keylime.Verifier, ca))
	}

	h.ca, h.clients = next, nextClients
	h.must(h.renew(carried(both(h.all()), "tenant")...)) // one is there before the others
	h.must(h.renew(both(h.all())...))
	h.checkAll(h.all())
	h.must(h.asked(keylime.Registrar, clients))

	h.installer.Trust.Servers = nil
	h.otherTrust(true, h.all())
	h.must(h.renew(h.all()...))
	h.otherTrust(false, h.all())
	h.wantBundles(next.Bundle(), nextClients.RootPEM)
	if err := h.asked(keylime.Registrar, clients); err == nil {
		t.Error("the old CA is known after it was dropped")
	}
}

func (h *host) withOutputs(items []Item) []Item {
	items[0].Output = Output{PEM: "/etc/site/book.pem", SPIFFE: "/etc/site/book.json", TrustDomain: "funlab.casa"}
	return items
}

func TestOutputsChangeWithTheSet(t *testing.T) {
	h := newHost(t)
	h.mkdir("etc/site")
	h.must(h.renew(h.withOutputs(h.all())...))
	read := func(name string) []byte {
		target, err := os.Readlink(h.path("etc/site/" + name))
		h.must(err)
		return []byte(h.read(target))
	}
	if got := read("book.pem"); !bytes.Equal(got, h.ca.Bundle()) {
		t.Errorf("book.pem:\n%s", got)
	}
	next := testca.New(t, "next")
	items := h.withOutputs(h.all())
	items[0].CA = append(slices.Clone(items[0].CA), next.RootPEM...)
	h.must(h.renew(carried(items, "tenant")...)) // of one that is carried over too
	got, err := spiffebundle.Parse(spiffeid.RequireTrustDomainFromString("funlab.casa"), read("book.json"))
	h.must(err)
	roots, err := keypair.ParseCertificates(append(slices.Clone(h.ca.RootPEM), next.RootPEM...))
	h.must(err)
	if len(got.X509Authorities()) != 2 || !got.HasX509Authority(roots[0]) || !got.HasX509Authority(roots[1]) {
		t.Errorf("book.json:\n%s", read("book.json"))
	}
	h.must(h.renew(h.all()...))
	if _, err := os.Stat(h.path(certs + "/verifier.bundle.json")); err == nil {
		t.Error("what nobody configures any more is still there")
	}
}

func TestOutputsAreTakenBack(t *testing.T) {
	h := newHost(t)
	h.mkdir("etc/site")
	items := h.withOutputs(h.all())
	h.verifierStart(items, "-cert", "/nonexistent")
	if err := h.renew(items...); err == nil {
		t.Fatal("accepted")
	}
	left, err := os.ReadDir(h.path("etc/site"))
	if h.must(err); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOutputsReplaceNothing(t *testing.T) {
	for name, bend := range map[string]func(h *host){
		"no folder":      func(*host) {},
		"a file":         func(h *host) { h.write("etc/site/book.pem", "mine", 0o644) },
		"a folder":       func(h *host) { h.mkdir("etc/site/book.pem") },
		"another's link": func(h *host) { h.mkdir("etc/site"); h.must(os.Symlink("/etc/passwd", h.path("etc/site/book.pem"))) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			bend(h)
			before := h.snapshot("etc")
			err := h.renew(h.withOutputs(h.all())...)
			if err == nil || remedy.Of(err) == "" {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(before, h.snapshot("etc")); diff != "" {
				t.Errorf("/etc changed:\n%s", diff)
			}
		})
	}
}
