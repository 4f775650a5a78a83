// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority is a root with one intermediate that signs leaves.
type authority struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Book of Omens"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root := sign(t, template, template, rootKey, rootKey)
	below := *template
	below.SerialNumber, below.Subject.CommonName = big.NewInt(2), "Book of Omens, volume 1"
	return &authority{root: root, intermediate: sign(t, &below, root, key, rootKey), key: key}
}

// issue signs a leaf with a new key; the key comes as PEM.
func (a *authority) issue(t *testing.T, name string, usages ...x509.ExtKeyUsage) (leaf *x509.Certificate, key string) {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	private := newKey(t)
	leaf = sign(t, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name + ".keylime.test"}, DNSNames: []string{name + ".keylime.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Minute), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
	}, a.intermediate, private, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func sign(t *testing.T, template, parent *x509.Certificate, of, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, of.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asPEM(certificates ...*x509.Certificate) string {
	var text []byte
	for _, certificate := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	return string(text)
}

// pools are the roots of a bundle and what is between them and the leaves.
func pools(text string) (roots, between *x509.CertPool, err error) {
	roots, between = x509.NewCertPool(), x509.NewCertPool()
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
			roots.AddCert(certificate)
		} else {
			between.AddCert(certificate)
		}
	}
	return roots, between, nil
}

// shows asks a server for its certificate.
func shows(address string, want *x509.Certificate) error {
	conn, err := tls.Dial("tcp", address, &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // it is compared
		VerifyConnection: func(state tls.ConnectionState) error {
			if !state.PeerCertificates[0].Equal(want) {
				return errors.New("it serves another certificate")
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	return conn.Close()
}
