// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrKeyModeLater is wrapped by the error for a key mode that is planned but
// not in this release.
var ErrKeyModeLater = errors.New("comes in a later release")

// CheckKeyMode says whether NewKey can make a key of this mode, without making
// one. "file", and "" which means the same, are the only ones so far.
func CheckKeyMode(mode string) error {
	switch mode {
	case "", "file":
		return nil
	case "sealed", "tpm", "auto":
		return fmt.Errorf(`key = %q %w; key = "file", or no key line at all, works today`, mode, ErrKeyModeLater)
	}
	return fmt.Errorf(`key = %q: unknown key mode: want "file"`, clean(mode))
}

// Key is an EC P-256 key pair made on this host for one certificate. It prints
// and serialises as "[key]". Its methods may be called concurrently.
type Key struct {
	// A function: package fmt follows pointers in unexported fields when the
	// verb does not fit them, but prints of a function only its address.
	private func() *ecdsa.PrivateKey
	spki    []byte
}

// NewKey makes a fresh key. Its mode says where the private half may live; see
// [CheckKeyMode] for the modes and the errors.
func NewKey(mode string) (*Key, error) {
	if err := CheckKeyMode(mode); err != nil {
		return nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return &Key{private: func() *ecdsa.PrivateKey { return private }, spki: spki}, nil
}

// SPKI returns the DER SubjectPublicKeyInfo (RFC 5280 section 4.1) of the
// public key: what the attestation names and what the certificate must carry.
func (k *Key) SPKI() []byte { return slices.Clone(k.spki) }

// CSR returns the PEM PKCS #10 request (RFC 2986) for r, signed with
// ecdsa-with-SHA256. It asks for the names of r and for nothing else: usage
// and lifetime are decided by the PKI role.
func (k *Key) CSR(r Request) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{
		Subject:            pkix.Name{CommonName: r.CommonName},
		DNSNames:           r.dnsNames(),
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	for _, addr := range r.IP {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	if r.URI != "" {
		id, err := spiffeid.FromString(r.URI)
		if err != nil {
			return nil, fmt.Errorf("uri: %w", err)
		}
		template.URIs = []*url.URL{id.URL()}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, k.private())
	if err != nil {
		return nil, fmt.Errorf("sign request for %q: %w", r.Name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// PEM returns the private key as unencrypted PKCS #8 (RFC 5958). Keylime reads
// SEC 1 and PKCS #8 alike; PKCS #8 names its algorithm inside, so that readers
// need to know one label, "PRIVATE KEY", whatever the key is.
func (k *Key) PEM() (PrivateKey, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private())
	if err != nil {
		return PrivateKey{}, fmt.Errorf("encode private key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return PrivateKey{pem: func() []byte { return text }}, nil
}

const (
	keyMark        = "[key]"
	privateKeyMark = "[private key]"
)

// Format implements fmt.Formatter for every verb.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, keyMark) }

// String returns a placeholder.
func (k *Key) String() string { return keyMark }

// GoString returns a placeholder.
func (k *Key) GoString() string { return keyMark }

// LogValue returns a placeholder.
func (k *Key) LogValue() slog.Value { return slog.StringValue(keyMark) }

// MarshalText returns a placeholder, for JSON and every other text encoding.
func (k *Key) MarshalText() ([]byte, error) { return []byte(keyMark), nil }

// PrivateKey is the PEM text of a private key. It prints and serialises as
// "[private key]", also when it is an unexported field of what is printed.
type PrivateKey struct{ pem func() []byte }

// Reveal returns a copy of the PEM text, ending in a newline; nil for the zero
// PrivateKey. It is for the one place that writes it to a 0600 file.
func (p PrivateKey) Reveal() []byte {
	if p.pem == nil {
		return nil
	}
	return slices.Clone(p.pem())
}

// Format implements fmt.Formatter for every verb.
func (p PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, privateKeyMark) }

// String returns a placeholder.
func (p PrivateKey) String() string { return privateKeyMark }

// GoString returns a placeholder.
func (p PrivateKey) GoString() string { return privateKeyMark }

// LogValue returns a placeholder.
func (p PrivateKey) LogValue() slog.Value { return slog.StringValue(privateKeyMark) }

// MarshalText returns a placeholder, for JSON and every other text encoding.
func (p PrivateKey) MarshalText() ([]byte, error) { return []byte(privateKeyMark), nil }
