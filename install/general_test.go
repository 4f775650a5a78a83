// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/internal/testtpm"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/test/testca"
)

// web makes a host's installer one of a general set, and gives an item of it.
func (h *host) web() Item {
	h.t.Helper()
	h.mkdir("etc/web")
	h.mkdir("run")
	h.installer.Set = Set{Name: "web", Folder: "/etc/web/omen"}
	item := Item{Name: "web", Profile: General, Usage: x509.ExtKeyUsageServerAuth, CA: h.ca.RootPEM}
	item.Chain, item.Key = h.ca.Issue(h.t, testca.Want{Name: "web.test", IPs: []string{"127.0.0.1"}, Usages: testca.Server()})
	return item
}

const webSet = "var/lib/omen-agent/web/current"

// TestFormsOfASealedKey: whatever holds a sealed key is on the tmpfs alone, with the
// owner and the mode that are configured, and comes back by an unsealing.
func TestFormsOfASealedKey(t *testing.T) {
	h := newHost(t)
	h.installer.Open = unseal
	item := seal(h.web())
	h.write("etc/web/password", "let me in\n", 0o600)
	item.Files = Files{
		Certificate: "tls.crt", Key: "tls.key", Combined: "tls.pem", CA: "clients.crt", PKCS12: "tls.p12", PasswordFile: "/etc/web/password",
		Owner: "keylime:tss", KeyMode: 0o640,
	}
	h.must(h.renew(item))
	h.checkForms(item)
	for _, f := range []string{"tls.key", "tls.pem", "tls.p12", "web.key"} {
		if target, err := os.Readlink(h.path(webSet + "/" + f)); err != nil || target != "/run/omen-agent/web/gen-000001/"+f {
			t.Errorf("%s: %s, %v", f, target, err)
		}
	}
	for name, text := range h.snapshot("var/lib/omen-agent") {
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("a key on the disk: %s", name)
		}
	}
	h.reboot()
	if names, err := h.installer.Unseal(t.Context(), unseal); err != nil || len(names) != 1 || names[0] != "web" {
		t.Fatalf("unsealed %v, %v", names, err)
	}
	h.checkForms(item)
	if damage, err := h.installer.Damage(); err != nil || len(damage) > 0 {
		t.Errorf("damage %v, %v", damage, err)
	}
	other := h.web()
	forms, err := item.Files.Make(h.root, beneath.File{Name: "web.key", Content: other.Key}, other.Chain, nil)
	h.must(err)
	strange, _ := fileset.Find(forms, "tls.p12")
	for name, text := range map[string]string{"tls.pem": "another", "tls.p12": string(strange.Content)} {
		h.must(os.WriteFile(h.path("run/omen-agent/web/gen-000001/"+name), []byte(text), 0o640))
		if damage, err := h.installer.Damage(); err != nil || len(damage) != 3 || damage[0].Harm != PlainLost || damage[0].Certificate != "web" {
			t.Errorf("%s: damage %v, %v", name, damage, err)
		}
		if _, err := h.installer.Unseal(t.Context(), unseal); err != nil {
			t.Error(err)
		}
		h.checkForms(item)
	}
	current, err := h.installer.Current()
	h.must(err)
	if len(current.Certificates) != 1 || current.Certificates[0].KeyPlace != KeySealed {
		t.Errorf("status %+v", current.Certificates)
	}
}

func chainOf(t *testing.T, item Item) []*x509.Certificate {
	t.Helper()
	chain, err := keypair.ParseCertificates(item.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// plain reads a file of the set, inside the root wherever its link leads to.
func (h *host) plain(name string) (string, os.FileInfo) {
	h.t.Helper()
	where := h.path(webSet + "/" + name)
	if target, err := os.Readlink(where); err == nil {
		where = h.path(target)
	}
	text, err := os.ReadFile(where)
	h.must(err)
	info, err := os.Stat(where)
	h.must(err)
	return string(text), info
}

func (h *host) checkForms(item Item) {
	h.t.Helper()
	for name, want := range map[string]string{
		"web.crt": string(item.Chain), "tls.crt": string(item.Chain), "web.key": string(item.Key), "tls.key": string(item.Key),
		"tls.pem": string(item.Key) + string(item.Chain), "clients.crt": string(h.ca.Bundle()), "ca.crt": string(h.ca.Bundle()),
	} {
		if got, _ := h.plain(name); got != want {
			h.t.Errorf("%s is %q", name, got)
		}
	}
	for _, name := range []string{"web.key", "tls.key", "tls.pem", "tls.p12"} {
		_, info := h.plain(name)
		if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o640 || stat.Uid != serviceUID || stat.Gid != 4713 {
			h.t.Errorf("%s: mode %o of %d:%d", name, info.Mode().Perm(), stat.Uid, stat.Gid)
		}
	}
	text, _ := h.plain("tls.p12")
	_, leaf, above, err := pkcs12.DecodeChain([]byte(text), "let me in")
	if err != nil || !leaf.Equal(chainOf(h.t, item)[0]) || len(above) != 1 {
		h.t.Errorf("PKCS#12: not the pair, or %d above, %v", len(above), err)
	}
}

// TestFormsFollowTheConfiguration: a form that nobody configures any more goes with
// the next set, also of a certificate that is carried over; and the way back has it.
func TestFormsFollowTheConfiguration(t *testing.T) {
	h := newHost(t)
	h.installer.Open = unseal
	item := seal(h.web())
	item.Files.Combined = "one.pem"
	h.must(h.renew(item))
	item.Files.Combined = "two.pem"
	other := item
	other.Chain, other.Key = h.ca.Issue(t, testca.Want{Name: "web.test", IPs: []string{"127.0.0.1"}, Usages: testca.Server()})
	h.must(h.renew(seal(other)))
	if _, err := os.Lstat(h.path(webSet + "/one.pem")); err == nil {
		t.Error("a form of before is carried on")
	}
	if got, _ := h.plain("two.pem"); got != string(other.Key)+string(other.Chain) {
		t.Errorf("two.pem is %q", got)
	}
	change, err := h.installer.Return(t.Context(), []Item{item})
	h.must(err)
	h.must(change.Reload(t.Context()))
	h.must(change.Probe(t.Context()))
	h.must(change.Close())
	if got, _ := h.plain("one.pem"); got != string(item.Key)+string(item.Chain) {
		t.Errorf("one.pem is %q", got)
	}
	done, err := h.installer.Uninstall(t.Context(), []Item{item})
	h.must(err)
	if left, _ := filepath.Glob(h.path("etc/web/*")); len(left) > 0 || done.Folder != "nothing" {
		t.Errorf("left: %v, %+v", left, done)
	}
}

// TestResidentKeyOfAGeneralProgram: the key is in the TPM, and a program of Go that
// loads TSS2 keys reads certificate and key at each handshake: nobody tells it.
func TestResidentKeyOfAGeneralProgram(t *testing.T) {
	h, c := newHost(t), testtpm.Start(t)
	h.installer.Sign = c.Sign
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		text, err := os.ReadFile(h.path(webSet + "/web.pem"))
		if err != nil {
			return nil, err
		}
		at := bytes.Index(text, []byte("-----BEGIN CERTIFICATE-----"))
		p, err := keypair.Parse(text[at:], text[:at])
		if err != nil {
			return nil, err
		}
		certificate := &tls.Certificate{PrivateKey: p.Signer}
		for _, cert := range p.Chain {
			certificate.Certificate = append(certificate.Certificate, cert.Raw)
		}
		(&plan{sign: c.Sign}).lend(hello.Context(), certificate)
		return certificate, nil
	}}
	server.TLS.Certificates = nil
	server.StartTLS()
	server.TLS.Certificates = nil
	t.Cleanup(server.Close)
	item := h.web()
	item.Files, item.Service = Files{Combined: "web.pem"}, Service{Action: ActNone, Probe: server.Listener.Addr().String()}
	for range 2 {
		item = h.inTPM(item, c)
		h.must(h.renew(item))
	}
	if got := h.read(webSet + "/web.pem"); got != string(item.Key)+string(item.Chain) {
		t.Errorf("combined: %q", got)
	}
	for _, f := range h.installer.Verify(t.Context(), []Item{item}) {
		if f.Err != nil {
			t.Errorf("%s: %v", f.Check, f.Err)
		}
	}
	current, err := h.installer.Current()
	h.must(err)
	if c.Signed == 0 || current.Certificates[0].KeyPlace != KeyInTPM {
		t.Errorf("%d signatures by the TPM, key in %s", c.Signed, current.Certificates[0].KeyPlace)
	}
}

// TestGeneralIsASetOfItsOwn: nothing else is in it, and it is in nothing else.
func TestGeneralIsASetOfItsOwn(t *testing.T) {
	h := newHost(t)
	web, registrar := h.web(), h.item("registrar", keylime.Registrar)
	for name, items := range map[string][]Item{"beside Keylime": {registrar, web}} {
		if err := h.renew(items...); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
	h.installer.Set = Set{}
	if err := h.renew(web); err == nil {
		t.Error("installed as Keylime's")
	}
	h.installer.Set = Set{Name: "web", Folder: "/etc/web/omen"}
	web.Usage = x509.ExtKeyUsageClientAuth
	if err := h.renew(web); err == nil {
		t.Error("a server's certificate installed as a client's")
	}
	web.Usage = x509.ExtKeyUsageAny
	if err := h.renew(web); err == nil {
		t.Error("installed for any usage")
	}
	if left, _ := filepath.Glob(h.path("etc/web/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPasswordOfOthers: a password that others can read is none.
func TestPasswordOfOthers(t *testing.T) {
	h := newHost(t)
	item := h.web()
	item.Files = Files{PKCS12: "web.p12", PasswordFile: "/etc/web/password"}
	for text, mode := range map[string]os.FileMode{"secret\n": 0o644, "": 0o600, "two\nlines\n": 0o600} {
		h.write("etc/web/password", text, mode)
		if err := h.renew(item); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q %o: %v", text, mode, err)
		}
	}
}
