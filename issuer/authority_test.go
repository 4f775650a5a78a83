// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// caTemplate is a CA certificate that is valid for years around now.
func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.AddDate(-1, 0, 0),
		NotAfter:              now.AddDate(5, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// newAuthority issues template by parent, or by itself when parent is nil.
func newAuthority(tb testing.TB, template *x509.Certificate, parent *authority) *authority {
	tb.Helper()
	a := &authority{key: newTestKey(tb)}
	if parent == nil {
		parent = &authority{cert: template, key: a.key}
	}
	a.cert = parent.issue(tb, template, a.key.Public())
	return a
}

func (a *authority) issue(tb testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	tb.Helper()
	cert, err := tryIssue(a, template, public)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func tryIssue(a *authority, template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// pemText is how OpenBao writes a certificate: without a final newline.
func pemText(cert *x509.Certificate) string {
	return strings.TrimSuffix(string(encodeCertificate(cert)), "\n")
}

// world is one request and everything that leads to a good reply to it.
type world struct {
	request     Request
	root, inter *authority
	key         *Key
	public      crypto.PublicKey    // what the certificate is over
	leaf        *x509.Certificate   // template
	issuer      *authority          // of the leaf
	anchors     []*x509.Certificate // what the caller pins
	reply       func(leaf string, w *world) Reply
}

// newWorld is the seed's verifier: one name as common name, one more, two
// addresses. Making two CAs takes a millisecond.
func newWorld(tb testing.TB) *world {
	tb.Helper()
	key, err := NewKey(tb.Context(), ModeFile, nil)
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{key: key, public: key.signer().Public()}
	w.request = Request{
		Name:       "verifier",
		CommonName: "verifier.keylime.example",
		DNS:        []string{"localhost"},
		IP:         []netip.Addr{netip.MustParseAddr("10.10.2.62"), netip.MustParseAddr("::1")},
		Usage:      ServerAuth,
		TTL:        24 * time.Hour,
	}
	w.root = newAuthority(tb, caTemplate("Root"), nil)
	w.inter = newAuthority(tb, caTemplate("Intermediate"), w.root)
	w.issuer, w.anchors = w.inter, []*x509.Certificate{w.root.cert}
	w.leaf = &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: w.request.CommonName},
		DNSNames:     []string{"localhost", w.request.CommonName},
		IPAddresses:  []net.IP{net.ParseIP("::1"), net.IPv4(10, 10, 2, 62)},
		NotBefore:    now.Add(-30 * time.Second),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	w.reply = func(leaf string, w *world) Reply {
		return Reply{Certificate: leaf, IssuingCA: pemText(w.inter.cert),
			CAChain: []string{pemText(w.inter.cert), pemText(w.root.cert)}}
	}
	return w
}

// withURI makes the request and the good certificate those of an X509-SVID.
func (w *world) withURI(tb testing.TB, id string) {
	tb.Helper()
	parsed, err := url.Parse(id)
	if err != nil {
		tb.Fatal(err)
	}
	w.request.URI = id
	w.leaf.URIs = []*url.URL{parsed}
}

// reissue replaces the intermediate by one from template.
func (w *world) reissue(tb testing.TB, change func(*x509.Certificate)) {
	tb.Helper()
	template := caTemplate("Intermediate")
	change(template)
	w.inter = newAuthority(tb, template, w.root)
	w.issuer = w.inter
}

func (w *world) judge(tb testing.TB) (*Issued, error) {
	tb.Helper()
	leaf := w.issuer.issue(tb, w.leaf, w.public)
	return Judge(w.reply(pemText(leaf), w), w.request, w.key.SPKI(), w.anchors, now)
}
