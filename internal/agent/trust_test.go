// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// newCA makes a CA: self-signed, or below a parent.
func newCA(t *testing.T, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// reader is an agent that has read the trust of a configuration with files by these
// names.
func reader(t *testing.T, c config.Config, files map[string][]*x509.Certificate) (*Agent, error) {
	t.Helper()
	dir := t.TempDir()
	for name, certificates := range files {
		if err := os.WriteFile(filepath.Join(dir, name), issuer.EncodeCertificates(certificates), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(dir, name)
	}
	c.Keylime.ClientCA, c.Keylime.ServerCA = in(c.Keylime.ClientCA), in(c.Keylime.ServerCA)
	for i := range c.Certificates {
		c.Certificates[i].Anchor = in(c.Certificates[i].Anchor)
	}
	a := &Agent{config: &c, install: &install.Installer{}, log: slog.New(slog.DiscardHandler)}
	return a, a.readTrust()
}

func verifier(anchor string) config.Certificate {
	return config.Certificate{Name: "verifier", Profile: "keylime-verifier", Anchor: anchor}
}

func tenant(anchor string) config.Certificate {
	return config.Certificate{Name: "tenant", Profile: "keylime-tenant", Anchor: anchor}
}

// Who shares a CA with Keylime's servers is told so, by what the files hold.
func TestRemarksOnASharedCA(t *testing.T) {
	book, _ := newCA(t, "book", nil, nil)
	next, _ := newCA(t, "next", nil, nil)
	clients, _ := newCA(t, "clients", nil, nil)
	files := map[string][]*x509.Certificate{
		"book.pem": {book}, "same.pem": {book}, "both.pem": {book, next}, "clients.pem": {clients}, "mixed.pem": {clients, next},
	}
	for _, row := range []struct {
		name         string
		certificates []config.Certificate
		client       string
		shared       bool
	}{
		{"one CA for all", []config.Certificate{verifier("book.pem"), tenant("book.pem")}, "", true},
		{"the same root in another file", []config.Certificate{verifier("book.pem"), tenant("same.pem")}, "", true},
		{"clients apart", []config.Certificate{verifier("book.pem"), tenant("clients.pem")}, "", false},
		{"clients apart, and said twice", []config.Certificate{verifier("book.pem"), tenant("clients.pem")}, "clients.pem", false},
		{"one root of several", []config.Certificate{verifier("both.pem"), tenant("mixed.pem")}, "", true},
		{"servers alone", []config.Certificate{verifier("book.pem")}, "", true},
		{"servers, client_ca", []config.Certificate{verifier("book.pem")}, "clients.pem", false},
		{"servers, the same as client_ca", []config.Certificate{verifier("book.pem")}, "same.pem", true},
		{"client_ca beside one that is apart", []config.Certificate{verifier("book.pem"), tenant("clients.pem")}, "book.pem", true},
		{"clients alone", []config.Certificate{tenant("book.pem")}, "", false},
	} {
		a, err := reader(t, config.Config{Keylime: config.Keylime{ClientCA: row.client}, Certificates: row.certificates}, files)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if got := a.Remarks(); (len(got) == 1) != row.shared || len(got) > 1 {
			t.Errorf("%s: remarks %q", row.name, got)
		}
	}
}

func TestFilesThatAreNoCA(t *testing.T) {
	root, key := newCA(t, "root", nil, nil)
	below, _ := newCA(t, "below", root, key)
	files := map[string][]*x509.Certificate{"root.pem": {root}, "below.pem": {below, root}, "alone.pem": {below}, "empty.pem": nil}
	for _, row := range []struct {
		anchor, client, server, says string
	}{
		{"root.pem", "root.pem", "below.pem", ""},
		{"below.pem", "", "", "the anchor is"},
		{"empty.pem", "", "", "the anchor is"},
		{"absent.pem", "", "", "the anchor is"},
		{"root.pem", "below.pem", "", "client_ca is"},
		{"root.pem", "empty.pem", "", "client_ca is"},
		{"root.pem", "", "alone.pem", "server_ca is"},
		{"root.pem", "", "absent.pem", "server_ca is"},
	} {
		a, err := reader(t, config.Config{
			Keylime: config.Keylime{ClientCA: row.client, ServerCA: row.server}, Certificates: []config.Certificate{verifier(row.anchor)},
		}, files)
		var fault *config.Error
		switch {
		case row.says == "" && (err != nil || len(a.install.Trust.Clients) == 0 || len(a.install.Trust.Servers) <= len(a.install.Trust.Clients)):
			t.Errorf("%+v: %v, %+v", row, err, a.install.Trust)
		case row.says != "" && (!errors.As(err, &fault) || !strings.Contains(fault.Hint, row.says)):
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// Each certificate is judged by its own anchor, and what is carried over brings the
// roots of now.
func TestAnchorsAreEachCertificatesOwn(t *testing.T) {
	book, _ := newCA(t, "book", nil, nil)
	next, _ := newCA(t, "next", nil, nil)
	clients, _ := newCA(t, "clients", nil, nil)
	files := map[string][]*x509.Certificate{"both.pem": {book, next}, "clients.pem": {clients}}
	uri := tenant("clients.pem")
	uri.URI, uri.SPIFFEBundleFile = "spiffe://funlab.casa/keylime/tenant", "/etc/site/bundle.json"
	a, err := reader(t, config.Config{Certificates: []config.Certificate{verifier("both.pem"), uri}}, files)
	if err != nil {
		t.Fatal(err)
	}
	items := a.emptyItems(a.sets()[0])
	if got, want := string(items[0].CA), string(issuer.EncodeCertificates(files["both.pem"])); got != want {
		t.Errorf("the verifier's roots:\n%s", got)
	}
	if got, want := string(items[1].CA), string(issuer.EncodeCertificates(files["clients.pem"])); got != want {
		t.Errorf("the tenant's roots:\n%s", got)
	}
	if got := items[1].Output; got.SPIFFE != uri.SPIFFEBundleFile || got.TrustDomain != "funlab.casa" {
		t.Errorf("output %+v", got)
	}
}

// While a CA is replaced the files change below an agent that runs; one that is
// broken for a moment takes nothing away.
func TestTrustIsReadAgain(t *testing.T) {
	book, _ := newCA(t, "book", nil, nil)
	next, _ := newCA(t, "next", nil, nil)
	a, err := reader(t, config.Config{Certificates: []config.Certificate{verifier("book.pem")}}, map[string][]*x509.Certificate{"book.pem": {book}})
	if err != nil {
		t.Fatal(err)
	}
	file := a.config.Certificates[0].Anchor
	for _, row := range []struct {
		text  []byte
		roots int
	}{
		{issuer.EncodeCertificates([]*x509.Certificate{book, next}), 2},
		{[]byte("half"), 2},
		{issuer.EncodeCertificates([]*x509.Certificate{next}), 1},
	} {
		if err := os.WriteFile(file, row.text, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := a.readTrust(); (err != nil) != (string(row.text) == "half") {
			t.Error(err)
		}
		if got := a.anchors[file]; len(got) != row.roots || !got[row.roots-1].Equal(next) {
			t.Errorf("%d roots of %q", len(got), row.text)
		}
	}
}
