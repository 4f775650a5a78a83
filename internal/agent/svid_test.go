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
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/workload"
)

const webID = "spiffe://funlab.casa/web"

// webItem is a certificate with a SPIFFE ID, of a CA of its own.
func webItem(t *testing.T, id string) install.Item {
	t.Helper()
	rootKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	uri, err3 := url.Parse(id)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "book"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "web"}, DNSNames: []string{"web"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, URIs: []*url.URL{uri},
	}
	rootDER, err4 := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	leafDER, err5 := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	private, err6 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return install.Item{Name: "web", Profile: install.General, Usage: x509.ExtKeyUsageServerAuth,
		Chain: text("CERTIFICATE", leafDER), Key: text("PRIVATE KEY", private), CA: text("CERTIFICATE", rootDER)}
}

// handing is an agent whose certificate "web" is handed out.
func handing(t *testing.T, users ...config.User) (a *Agent, own *install.Installer) {
	t.Helper()
	a, root := several(t)
	place(t, filepath.Join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nwww:x:4711:4711::/:/bin/false\n")
	a.config.Certificates[1].URI = webID
	a.config.WorkloadAPI = config.WorkloadAPI{Socket: "/run/omen-agent/workload.sock", Certificate: "web", Users: users}
	return a, a.installerOf(install.Set{Name: "web", Folder: a.config.Certificates[1].Files.Folder})
}

// installWeb makes an item current; proven or not.
func installWeb(t *testing.T, own *install.Installer, item install.Item, proven bool) *install.Change {
	t.Helper()
	change, err := own.Install(t.Context(), []install.Item{item})
	if err == nil && proven {
		err = errors.Join(change.Reload(t.Context()), change.Probe(t.Context()), change.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func TestWorkloadAPI(t *testing.T) {
	a, own := handing(t, "www")
	settings := a.WorkloadAPI()
	wantNone := func(says string) {
		t.Helper()
		_, err := settings.SVID()
		var none *workload.Unavailable
		if !errors.As(err, &none) || !strings.Contains(none.Says, says) {
			t.Errorf("%v, %+v", err, none)
		}
	}
	wantNone("not installed")
	item := webItem(t, webID)
	installWeb(t, own, item, true)
	got, err := settings.SVID()
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := pem.Decode(item.Chain)
	key, _ := pem.Decode(item.Key)
	root, _ := pem.Decode(item.CA)
	if got.ID != webID || got.Domain != "spiffe://funlab.casa" || string(got.Chain[0]) != string(leaf.Bytes) ||
		string(got.Key()) != string(key.Bytes) || len(got.Bundle) != 1 || string(got.Bundle[0]) != string(root.Bytes) || time.Until(got.NotAfter) > time.Hour {
		t.Errorf("%+v", got)
	}
	change := installWeb(t, own, webItem(t, webID), false)
	wantNone("not proven")
	if err := errors.Join(change.RollBack(t.Context()), change.Close()); err != nil {
		t.Fatal(err)
	}
	installWeb(t, own, webItem(t, "spiffe://funlab.casa/other"), true)
	wantNone("not renewed")

	a.config.WorkloadAPI = config.WorkloadAPI{}
	if a.WorkloadAPI() != nil {
		t.Error("something is served that is not configured")
	}
}

// Who is listed is let in, and nobody else: root neither, and no user for a name that
// means none.
func TestWhoIsListed(t *testing.T) {
	a, _ := handing(t, "www", "998", "ghost")
	allowed := a.WorkloadAPI().Allowed
	for uid, want := range map[uint32]bool{4711: true, 998: true, 0: false, 4712: false, 65534: false, 1<<32 - 1: false} {
		if allowed(uid) != want {
			t.Errorf("user %d: %t", uid, !want)
		}
	}
	if remarks := a.strangers(); len(remarks) != 1 || !strings.Contains(remarks[0], `"ghost"`) {
		t.Errorf("%v", remarks)
	}
	place(t, filepath.Join(a.root(), "etc/passwd"), "ghost:x:5000:5000::/:/bin/false\n") // made later; www has gone
	if !allowed(5000) || allowed(4711) || len(a.strangers()) != 1 {
		t.Error("the list is of before")
	}
	if err := os.Remove(filepath.Join(a.root(), "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if allowed(0) || allowed(5000) {
		t.Error("somebody is let in when nobody can be looked up")
	}
}
