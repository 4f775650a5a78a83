// SPDX-License-Identifier: Apache-2.0

// Package testca makes roots, intermediates and leaves for tests. It is imported
// by tests only and never writes to disk.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// CA is a root with one intermediate below it.
type CA struct {
	RootPEM, IntermediatePEM []byte
	intermediate             *x509.Certificate
	key                      crypto.Signer
}

// New makes a CA whose root has the given name.
func New(t testing.TB, name string) *CA {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	root := authority(name + " root")
	rootDER := sign(t, root, root, rootKey.Public(), rootKey)
	intermediateDER := sign(t, authority(name+" intermediate"), root, key.Public(), rootKey)
	parsed, err := x509.ParseCertificate(intermediateDER)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{RootPEM: certPEM(rootDER), IntermediatePEM: certPEM(intermediateDER), intermediate: parsed, key: key}
}

// NewSmall makes a CA without intermediate: its root signs leaves itself.
func NewSmall(t testing.TB, name string) *CA {
	t.Helper()
	key := newKey(t)
	root := authority(name)
	der := sign(t, root, root, key.Public(), key)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{RootPEM: certPEM(der), intermediate: parsed, key: key}
}

// Bundle is intermediate and root, as ca.crt has to be.
func (c *CA) Bundle() []byte { return append(append([]byte{}, c.IntermediatePEM...), c.RootPEM...) }

// Want says what a leaf is to be; zero values are filled in by Issue.
type Want struct {
	Name     string // common name and DNS name
	Usages   []x509.ExtKeyUsage
	IPs      []string
	URI      string
	NotAfter time.Time
	Key      crypto.Signer // nil: a new EC P-256 key
}

// Issue signs a leaf and returns its chain (leaf, intermediate) and its key.
func (c *CA) Issue(t testing.TB, want Want) (chain, key []byte) {
	t.Helper()
	if want.Key == nil {
		want.Key = newKey(t)
	}
	der, err := x509.MarshalPKCS8PrivateKey(want.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c.IssueOver(t, want, want.Key.Public()), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// IssueOver signs a leaf over a key whose private half is elsewhere, and returns
// its chain.
func (c *CA) IssueOver(t testing.TB, want Want, public crypto.PublicKey) (chain []byte) {
	t.Helper()
	if want.NotAfter.IsZero() {
		want.NotAfter = time.Now().Add(time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: want.Name}, DNSNames: []string{want.Name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: want.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: want.Usages,
	}
	if want.URI != "" {
		uri, err := url.Parse(want.URI)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{uri}
	}
	for _, ip := range want.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	return append(certPEM(sign(t, template, c.intermediate, public, c.key)), c.IntermediatePEM...)
}

// Server is the usage of verifier, registrar and agent.
func Server() []x509.ExtKeyUsage { return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

// Client is the usage of the verifier's client certificate and of the tenant.
func Client() []x509.ExtKeyUsage { return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// RSA makes an RSA key.
func RSA(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
