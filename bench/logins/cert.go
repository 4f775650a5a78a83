// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"funlab.casa/omen/bench/load"
)

// cert has the same callers log in with cert auth, each with a certificate of
// its own, for tokens of a type; see approle.
func (s *server) cert(ctx context.Context, name, tokenType string, callers int) (load.Subject, error) {
	authority, err := newIdentity("authority", nil)
	if err != nil {
		return load.Subject{}, err
	}
	trusted := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate[0]})
	err = s.write(ctx, "auth/cert/certs/"+name, map[string]any{"certificate": string(trusted), "token_type": tokenType})
	if err != nil {
		return load.Subject{}, err
	}
	connections := make([]*load.Caller, callers)
	for i := range callers {
		identity, err := newIdentity(fmt.Sprintf("bench-%04d", i), authority)
		if err != nil {
			return load.Subject{}, err
		}
		connections[i] = load.NewCaller(s.leader.Address, s.roots, identity)
	}
	return load.Subject{Name: name, Login: func(ctx context.Context, i int) error {
		return connections[i].Write(ctx, "auth/cert/login", map[string]any{"name": name}, nil)
	}}, nil
}

// newIdentity makes a certificate and its key: an authority, or by one a client.
func newIdentity(name string, issuer *tls.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	parent, signer := template, any(key)
	if issuer == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, signer = issuer.Leaf, issuer.PrivateKey
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
