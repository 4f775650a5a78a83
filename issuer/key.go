// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"funlab.casa/omen/internal/tpm"
)

// Key is an EC P-256 key pair made on this host for one certificate. It prints
// and serialises as "[key]". Its methods may be called concurrently, but for those
// that use the TPM.
type Key struct {
	// Functions: package fmt follows pointers in unexported fields when the verb
	// does not fit them, but prints of a function only its address.
	signer   func() crypto.Signer
	text     func() ([]byte, error) // the key file
	mode     Mode
	spki     []byte
	resident *tpm.Blob // nil: the private half is not in the TPM
}

// NewKey makes a fresh key of a mode that is not auto. storage is needed for
// ModeResident only, and then for as long as the key signs.
func NewKey(ctx context.Context, mode Mode, storage Storage) (*Key, error) {
	if err := CheckMode(mode); err != nil {
		return nil, err
	}
	var key *Key
	var err error
	switch {
	case mode == ModeResident && storage != nil:
		key, err = residentKey(ctx, storage)
	case mode == ModeFile || mode == ModeSealed:
		key, err = softKey(mode)
	default:
		err = fmt.Errorf("no key of mode %q can be made here", mode)
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// softKey makes a key in memory.
func softKey(mode Mode) (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := newKey(mode, private)
	if err != nil {
		return nil, err
	}
	key.text = func() ([]byte, error) { return pkcs8(private) }
	return key, nil
}

// pkcs8Label is the PEM label of PKCS #8 (RFC 7468 section 10).
const pkcs8Label = "PRIVATE KEY"

// pkcs8 is the key file of a key in memory.
func pkcs8(private *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: pkcs8Label, Bytes: der}), nil
}

func newKey(mode Mode, signer crypto.Signer) (*Key, error) {
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return &Key{mode: mode, spki: spki, signer: func() crypto.Signer { return signer }}, nil
}

// Mode says where the private half lives.
func (k *Key) Mode() Mode { return k.mode }

// Resident gives what the TPM loads the key from, nil where it is not in the TPM.
// It is what TPM2_Certify can be asked about.
func (k *Key) Resident() *tpm.Blob { return k.resident }

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
	der, err := x509.CreateCertificateRequest(rand.Reader, template, k.signer())
	if err != nil {
		return nil, fmt.Errorf("sign request for %q: %w", r.Name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// PEM returns the key file: unencrypted PKCS #8 (RFC 5958), or of a key in the
// TPM a TSS2 PRIVATE KEY. Keylime reads SEC 1 and PKCS #8 alike; PKCS #8 names its
// algorithm inside, so that readers need to know one label, whatever the key is.
func (k *Key) PEM() (PrivateKey, error) {
	text, err := k.text()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("encode private key: %w", err)
	}
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
