// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// dialTimeout bounds one connection with its handshake.
const dialTimeout = 10 * time.Second

// Target is a service and the certificate it is expected to serve.
type Target struct {
	Address string            // host:port
	Leaf    *x509.Certificate // the installed server certificate
	Bundle  []byte            // ca.crt: intermediate and root, PEM
	Apart   bool              // clients have a CA of their own: the leaf's is unknown to the service, and rightly so
}

// Address joins what a configuration says a service listens on, and says where
// to reach it from this host: a wildcard becomes loopback.
func Address(ip string, port int) string {
	switch ip {
	case "", "0.0.0.0", "*":
		ip = "127.0.0.1"
	case "::":
		ip = "::1"
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

// Port returns the port of host:port, or 0 when it is not one.
func Port(address string) int {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// WrongLeafError says that a service serves another certificate than installed.
type WrongLeafError struct{ Served, Installed string } // serial numbers

// Error names both serial numbers.
func (e *WrongLeafError) Error() string {
	return fmt.Sprintf("certificate %s is served, %s is installed", e.Served, e.Installed)
}

// config is the standard verification for a name of the installed leaf, plus
// two checks the standard one does not make: the very leaf, and the root.
func (t Target) config() (*tls.Config, error) {
	anchors, roots, intermediates, err := split(t.Bundle)
	if err != nil {
		return nil, err
	}
	name, err := nameOf(t.Leaf)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name,
		RootCAs:    anchors, // the intermediate too: the Rust agent serves the leaf alone
		VerifyConnection: func(state tls.ConnectionState) error {
			if !state.PeerCertificates[0].Equal(t.Leaf) {
				return t.wrongLeaf(state.PeerCertificates[0])
			}
			_, err := t.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
			return err
		},
	}, nil
}

func (t Target) wrongLeaf(served *x509.Certificate) error {
	return &WrongLeafError{Served: Serial(served), Installed: Serial(t.Leaf)}
}

// explain turns a failed verification of another certificate into that fact.
func (t Target) explain(err error) error {
	var failed *tls.CertificateVerificationError
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 && !failed.UnverifiedCertificates[0].Equal(t.Leaf) {
		return fmt.Errorf("%w: %w", t.wrongLeaf(failed.UnverifiedCertificates[0]), failed.Err)
	}
	return err
}

// Serial writes a serial number as OpenBao does: hexadecimal pairs with colons.
func Serial(cert *x509.Certificate) string {
	digits := cert.SerialNumber.Text(16)
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	var pairs []string
	for ; digits != ""; digits = digits[2:] {
		pairs = append(pairs, digits[:2])
	}
	return strings.Join(pairs, ":")
}

// nameOf picks a name or address that the certificate itself carries.
func nameOf(leaf *x509.Certificate) (string, error) {
	for _, name := range leaf.DNSNames {
		if !strings.Contains(name, "*") {
			return name, nil
		}
	}
	if len(leaf.IPAddresses) > 0 {
		return leaf.IPAddresses[0].String(), nil
	}
	return "", errors.New("certificate has no DNS name or address to verify it by")
}

// split parses a bundle: everything as anchors, and roots and intermediates apart.
func split(bundle []byte) (anchors, roots, intermediates *x509.CertPool, err error) {
	anchors, roots, intermediates = x509.NewCertPool(), x509.NewCertPool(), x509.NewCertPool()
	found := false
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("parse CA bundle: %w", err)
		}
		anchors.AddCert(cert)
		if cert.CheckSignatureFrom(cert) == nil {
			roots.AddCert(cert)
			found = true
		} else {
			intermediates.AddCert(cert)
		}
	}
	if !found {
		return nil, nil, nil, errors.New("CA bundle does not reach a root")
	}
	return anchors, roots, intermediates, nil
}

// HasName returns an error when the leaf has no name that a probe can verify.
func (t Target) HasName() error {
	_, err := nameOf(t.Leaf)
	return err
}
