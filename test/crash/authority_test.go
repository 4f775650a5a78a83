// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"funlab.casa/omen/test/testca"
)

// issue signs a leaf with a new key; the key comes as PEM.
func issue(t *testing.T, ca *testca.CA, name string, usages ...x509.ExtKeyUsage) (leaf *x509.Certificate, key string) {
	t.Helper()
	chain, private := ca.Issue(t, testca.Want{Name: name + ".keylime.test", Usages: usages, IPs: []string{"127.0.0.1"}, NotAfter: time.Now().Add(12 * time.Hour)})
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, string(private)
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
