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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// several is an agent with Keylime's set and two others, of which nothing is
// installed but the tenant's certificate.
func several(t *testing.T) (a *Agent, root string) {
	t.Helper()
	a, root = installed(t)
	a.state = filepath.Join(root, "var/lib/omen-agent/state")
	a.config.Certificates[0].TTL.Duration = time.Hour
	for _, name := range []string{"web", "other"} {
		a.config.Certificates = append(a.config.Certificates, config.Certificate{
			Name: name, Profile: config.General, ForUsage: config.Client, TTL: config.Duration{Duration: time.Hour},
			Files: config.Files{Folder: "/etc/" + name + "/omen", Combined: "both.pem"}, Service: config.Service{Action: config.NoAct},
		})
		if err := os.MkdirAll(filepath.Join(root, "etc", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return a, root
}

// severalInstalled is several, with all of them installed.
func severalInstalled(t *testing.T) (a *Agent, root string) {
	t.Helper()
	a, root = several(t)
	orders, err := a.orders(nil)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, orders)
	if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err != nil {
		t.Fatal(err)
	}
	return a, root
}

// issue is what OpenBao would have made of the orders.
func issue(t *testing.T, orders []*order) {
	t.Helper()
	for _, o := range orders {
		key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.key, o.issued = key, issueOver(t, key.SPKI())
	}
}

func issueOver(t *testing.T, spki []byte) *issuer.Issued {
	t.Helper()
	public, err1 := x509.ParsePKIXPublicKey(spki)
	rootKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "book"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now(), NotAfter: root.NotAfter, DNSNames: []string{"web.test"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	rootDER, err3 := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	leafDER, err4 := x509.CreateCertificate(rand.Reader, leaf, root, public, rootKey)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	text := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	return &issuer.Issued{ChainPEM: text(leafDER), CAPEM: text(rootDER)}
}

// TestSetsFailAlone: a set that cannot be installed is reported and renewed again; the
// others are renewed, in one go, and left alone then.
func TestSetsFailAlone(t *testing.T) {
	a, root := several(t)
	place(t, filepath.Join(root, "etc/web/omen/readme"), "not PEM: nothing of ours, and nothing to take over")
	orders, err := a.orders(nil)
	if err != nil || len(orders) != 3 {
		t.Fatalf("%d orders, %v", len(orders), err)
	}
	issue(t, orders)
	outcome := &Outcome{}
	err = a.deployAll(t.Context(), orders, outcome, newStopwatch())
	var step *StepError
	if !errors.As(err, &step) || step.Certificate != "web" || step.Step != StepInstall || !errors.Is(err, install.ErrNotAdoptable) {
		t.Fatalf("web: %v", err)
	}
	if outcome.Generation != 2 || outcome.Generations["other"] != 1 || len(outcome.Certificates) != 2 {
		t.Errorf("%+v", outcome)
	}
	if only := a.pending(); !slices.Equal(only, []string{"web"}) {
		t.Errorf("to renew again: %v", only)
	}
	if text, err := os.ReadFile(filepath.Join(root, "var/lib/omen-agent/other/current/both.pem")); err != nil || len(text) == 0 {
		t.Errorf("other: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "etc/web/omen")); err != nil {
		t.Fatal(err)
	}
	if orders, err = a.orders([]string{"web"}); err != nil {
		t.Fatal(err)
	}
	issue(t, orders)
	if err := a.deployAll(t.Context(), orders, outcome, newStopwatch()); err != nil || outcome.Generations["web"] != 1 || a.pending() != nil {
		t.Errorf("again: %v, %+v, %v", err, outcome, a.pending())
	}
	if outcome.Generation != 2 {
		t.Error("Keylime's set was touched for another")
	}
}

// TestReadyWhenAllAreInPlace: who waits at boot for the certificates of a set starts when
// those of every set are there, and before anything is restarted for one.
func TestReadyWhenAllAreInPlace(t *testing.T) {
	a, root := several(t)
	orders, err := a.orders(nil)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, orders)
	told := 0
	a.OnSwitch(func() {
		told++
		for _, name := range []string{"web", "other"} {
			if _, err := os.Stat(filepath.Join(root, "var/lib/omen-agent", name, "current/both.pem")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(root, "var/lib/omen-agent", name, "journal")); err != nil {
				t.Errorf("%s is asked what it serves already: %v", name, err)
			}
		}
	})
	if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err != nil || told != 1 {
		t.Errorf("told %d times: %v", told, err)
	}
	if status, err := a.Status(); err != nil || status.Unproven {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestEverySetIsKnown: status, rollback, verify, forget and uninstall see all sets.
func TestEverySetIsKnown(t *testing.T) {
	a, root := several(t)
	orders, err := a.orders([]string{"web", "other"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		issue(t, orders)
		if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err != nil {
			t.Fatal(err)
		}
	}
	status, err := a.Status()
	if err != nil || status.Generation != 1 || status.Generations["web"] != 2 || status.Generations["other"] != 2 || len(status.Certificates) != 3 {
		t.Fatalf("%+v, %v", status, err)
	}
	returned, err := a.Rollback(t.Context(), "web")
	if err != nil || returned.From != 2 || returned.Generation != 1 {
		t.Errorf("%+v, %v", returned, err)
	}
	if status, err = a.Status(); err != nil || status.Generations["other"] != 2 || status.Generations["web"] != 1 {
		t.Errorf("%+v, %v", status, err)
	}
	var unknown *config.Error
	if _, err := a.Rollback(t.Context(), "nobody"); !errors.As(err, &unknown) {
		t.Errorf("back to nothing: %v", err)
	}
	findings, err := a.Verify(t.Context())
	if err != nil || len(findings) != 3 {
		t.Errorf("%+v, %v", findings, err)
	}
	if _, err := a.Forget(t.Context()); err == nil {
		t.Error("forgotten while sets are installed")
	}
	place(t, filepath.Join(root, "var/lib/omen-agent/web/current/both.pem"), "x")
	if orders, err := a.withSpoiled(t.Context(), nil); err != nil || len(orders) != 1 || orders[0].cert.Name != "web" {
		t.Errorf("spoiled: %v, %v", orders, err)
	}
	a.config.Metrics.Textfile = "/srv/node-exporter/omen.prom"
	place(t, filepath.Join(root, a.config.Metrics.Textfile), "omen_build_info 1\n")
	if _, err := a.Uninstall(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "srv/node-exporter")); err != nil || len(left) > 0 {
		t.Errorf("metrics are left: %v, %v", left, err)
	}
	for _, folder := range []string{"etc/web", "etc/other", "var/lib"} {
		if left, err := os.ReadDir(filepath.Join(root, folder)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", folder, left, err)
		}
	}
}

// TestSetConfiguredNoMore: its certificates run out, which is said; forget waits for
// it, and uninstall puts it back too.
func TestSetConfiguredNoMore(t *testing.T) {
	a, root := several(t)
	orders, err := a.orders([]string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	place(t, filepath.Join(root, "etc/web/omen/by-hand.crt"), string(issueOver(t, spkiOf(t)).ChainPEM))
	issue(t, orders)
	if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err != nil {
		t.Fatal(err)
	}
	a.config.Certificates = a.config.Certificates[:1]
	status, err := a.Status()
	if err != nil || len(status.Certificates) != 1 || !strings.Contains(strings.Join(status.Remarks, "\n"), "web is installed at /etc/web/omen") {
		t.Errorf("%+v, %v", status, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(root, "etc/keylime/certs")), os.RemoveAll(filepath.Join(root, "var/lib/omen-agent/keylime"))); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Forget(t.Context()); err == nil || !strings.Contains(err.Error(), "set web") {
		t.Errorf("forgotten: %v", err)
	}
	done, err := a.Uninstall(t.Context())
	if err != nil || !strings.Contains(strings.Join(done.Warnings, "\n"), "/etc/web/omen") {
		t.Errorf("uninstalled: %+v, %v", done, err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/web/omen/by-hand.crt")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "var/lib")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func spkiOf(t *testing.T) []byte {
	t.Helper()
	key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key.SPKI()
}

// TestRivalOfAGeneralSet: a service that reads in the folder is none, a line of cron
// that copies into it is.
func TestRivalOfAGeneralSet(t *testing.T) {
	a, root := several(t)
	place(t, filepath.Join(root, "etc/systemd/system/web.service"), "[Service]\nExecStart=/usr/bin/web --cert /etc/web/omen/web.crt\n")
	place(t, filepath.Join(root, "run/systemd/units/invocation:web.service"), "")
	if found, err := a.Rivals(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("its reader is a rival: %v, %v", found, err)
	}
	place(t, filepath.Join(root, "etc/cron.d/copy"), "@daily root cp /root/new/* /etc/web/omen/\n")
	if found, err := a.Rivals(t.Context()); err != nil || len(found) != 1 || !found[0].Active {
		t.Errorf("another renewal: %v, %v", found, err)
	}
}
