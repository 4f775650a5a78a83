// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// installed is an agent on a host of its own, with tenant and agent certificates of
// which the tenant's is installed. Nothing of it has a service.
func installed(t *testing.T) (a *Agent, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	root, err := os.MkdirTemp("/dev/shm", "omen-agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n",
		"etc/keylime/tenant.conf": "[tenant]\n",
	} {
		place(t, filepath.Join(root, name), text)
	}
	if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	a = &Agent{
		config:  &config.Config{Certificates: []config.Certificate{{Name: "tenant", Profile: "keylime-tenant"}}},
		install: &install.Installer{Root: root}, log: slog.New(slog.DiscardHandler), now: time.Now,
	}
	put(t, a)
	return a, root
}

func place(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// put installs a tenant's certificate.
func put(t *testing.T, a *Agent) {
	t.Helper()
	chain, key, root := issueClient(t)
	change, err := a.install.Install(t.Context(), []install.Item{{Name: "tenant", Profile: "keylime-tenant", Chain: chain, Key: key, CA: root}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change.Reload(t.Context()), change.Probe(t.Context()), change.Close()); err != nil {
		t.Fatal(err)
	}
}

// issueClient makes a root and a client certificate of it.
func issueClient(t *testing.T) (chain, key, root []byte) {
	t.Helper()
	rootKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leafKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "book"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err3 := x509.CreateCertificate(rand.Reader, template, template, rootKey.Public(), rootKey)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "tenant"}, NotBefore: template.NotBefore, NotAfter: template.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	leafDER, err4 := x509.CreateCertificate(rand.Reader, leaf, template, leafKey.Public(), rootKey)
	keyDER, err5 := x509.MarshalPKCS8PrivateKey(leafKey)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return text("CERTIFICATE", leafDER), text("PRIVATE KEY", keyDER), text("CERTIFICATE", rootDER)
}

func TestChangedCertificateIsDue(t *testing.T) {
	a, root := installed(t)
	if len(a.spoiled(t.Context())) > 0 {
		t.Fatal("nothing was changed")
	}
	path := filepath.Join(root, "var/lib/omen-agent/keylime/current/tenant.crt")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if len(a.spoiled(t.Context())) > 0 {
		t.Error("a mode alone is a renewal")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("not mended: %v, %v", info, err)
	}
	place(t, path, "x")
	if status, err := a.install.Current(); err != nil || len(status.Damage) != 1 {
		t.Errorf("%+v, %v", status, err)
	}
	if names := a.spoiled(t.Context()); !slices.Equal(names, []string{"tenant"}) {
		t.Errorf("to renew: %v", names)
	}
	orders, err := a.withSpoiled(t.Context(), nil)
	if err != nil || len(orders) != 1 || orders[0].cert.Name != "tenant" {
		t.Errorf("orders: %v, %v", orders, err)
	}
	if same, err := a.withSpoiled(t.Context(), orders); err != nil || len(same) != 1 {
		t.Errorf("ordered twice: %v, %v", same, err)
	}
}

func TestRollbackAndUninstall(t *testing.T) {
	a, root := installed(t)
	first := serial(t, a)
	if _, err := a.Rollback(t.Context(), ""); !errors.Is(err, install.ErrNoReturn) {
		t.Fatalf("nothing before: %v", err)
	}
	put(t, a)
	returned, err := a.Rollback(t.Context(), "")
	if err != nil || returned.Generation != 1 || returned.From != 2 || serial(t, a) != first {
		t.Fatalf("%+v, %v", returned, err)
	}
	done, err := a.Uninstall(t.Context())
	if err != nil || done.Folder != "nothing" {
		t.Fatalf("%+v, %v", done, err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "etc/keylime")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	_, err = a.Uninstall(t.Context())
	var step *StepError
	if !errors.Is(err, install.ErrNotInstalled) || !errors.As(err, &step) || step.Step != StepInstall {
		t.Errorf("again: %v", err)
	}
}

func serial(t *testing.T, a *Agent) string {
	t.Helper()
	current, err := a.install.Current()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(current.Certificates, func(c install.Certificate) bool { return c.Name == "tenant" })
	return current.Certificates[at].Serial
}

// An interrupted installation is a renewal that is due now.
func TestUnprovenSetIsDue(t *testing.T) {
	a, root := installed(t)
	place(t, filepath.Join(root, "var/lib/omen-agent/keylime/journal"), "{}")
	status, err := a.Status()
	if err != nil || !status.Unproven || !status.NextRenewal.IsZero() {
		t.Errorf("%+v, %v", status, err)
	}
}
