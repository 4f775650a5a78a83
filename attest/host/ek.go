// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// An endorsementKey is what its certificate says or, without one, what the TPM
// says.
type endorsementKey struct {
	class       *class
	source      source
	certificate []byte // DER; nil where nobody certified the key
	spki        []byte // DER SubjectPublicKeyInfo
	id          attest.TPMID
	public      tpm2.TPMTPublic
}

// source is where the word for an endorsement key comes from.
type source string

const (
	fromTPM    source = ""     // a certificate in the TPM's NV storage
	fromFile   source = "file" // a certificate that the vendor delivered elsewhere
	fromNobody source = "none" // no certificate
)

// parseEndorsementKey reads a certificate for what it says of the key. Whether
// it is to be believed is the server's business.
func parseEndorsementKey(der []byte, from source) (*endorsementKey, error) {
	key, err := certifiedKeyOf(der)
	if err != nil {
		return nil, fmt.Errorf("parse EK certificate: %w", err)
	}
	ek, err := newEndorsementKey(key)
	if err != nil {
		return nil, fmt.Errorf("use EK certificate: %w", err)
	}
	ek.source, ek.certificate = from, der
	return ek, nil
}

// certifiedKeyOf is the key in a certificate (RFC 5280, 4.1), whatever else is
// there: vendors made certificates with negative serial numbers, which package
// x509 does not parse, and the server knows better what it forgives.
func certifiedKeyOf(der []byte) (crypto.PublicKey, error) {
	var certificate struct {
		TBS struct {
			Version                                         int `asn1:"optional,explicit,default:0,tag:0"`
			Serial                                          *big.Int
			Signature, Issuer, Validity, Subject, PublicKey asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	rest, err := asn1.Unmarshal(der, &certificate)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after it", len(rest))
	}
	return x509.ParsePKIXPublicKey(certificate.TBS.PublicKey.FullBytes)
}

// newEndorsementKey is the key without a certificate.
func newEndorsementKey(key crypto.PublicKey) (*endorsementKey, error) {
	public, err := attest.EKPublic(key)
	if err != nil {
		return nil, err
	}
	id, err := attest.NewTPMID(key)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return &endorsementKey{class: classOf(key), source: fromNobody, spki: spki, id: id, public: *public}, nil
}

// ErrAnotherKey says that the TPM makes another endorsement key than the one of
// the certificate: that of another TPM, or of this one before it was replaced.
var ErrAnotherKey = errors.New("the endorsement key in the TPM is not the one of its certificate")

// primary says how the TPM finds or makes the key.
func (ek *endorsementKey) primary() tpm.Primary {
	want := tpm2.Marshal(ek.public) // built by us from a template, not received
	return tpm.Primary{Template: ek.class.template(), Handle: ek.class.handle, Accept: func(public []byte) error {
		if !bytes.Equal(public, want) {
			return ErrAnotherKey
		}
		return nil
	}}
}

// endorsementKey finds the key that the configuration says, as the TPM says it
// now.
func (p *Prover) endorsementKey(ctx context.Context) (*endorsementKey, error) {
	switch p.config.source() {
	case fromNobody:
		return p.uncertifiedKey(ctx)
	case fromFile:
		return p.filedKey(ctx)
	default:
		return p.certifiedKey(ctx)
	}
}

// candidates are the classes to look at: the configured one, the one on record,
// or all.
func (p *Prover) candidates() []class {
	switch {
	case !p.config.auto():
		return []class{*classNamed(p.config.EK)}
	case p.recorded != nil:
		return []class{*p.recorded}
	default:
		return classes
	}
}

// certifiedKey reads the certificate of the first candidate that has one in the
// TPM. A certificate that is there but cannot be read is an error: passing on to
// the next would change who this host is.
func (p *Prover) certifiedKey(ctx context.Context) (*endorsementKey, error) {
	for _, c := range p.candidates() {
		der, err := p.tpm.ReadCertificate(ctx, c.index)
		if errors.Is(err, tpm.ErrNoCertificate) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s EK certificate: %w", c.name, err)
		}
		ek, err := parseEndorsementKey(der, fromTPM)
		if err != nil {
			return nil, fmt.Errorf("read %s EK certificate: %w", c.name, err)
		}
		if ek.class.name != c.name {
			return nil, fmt.Errorf("read %s EK certificate: it is for a %s key", c.name, ek.class.name)
		}
		return ek, nil
	}
	return nil, p.noCertificate()
}

func (p *Prover) noCertificate() error {
	switch {
	case !p.config.auto():
		return fmt.Errorf("find %s EK certificate: %w", p.config.EK, tpm.ErrNoCertificate)
	case p.recorded != nil:
		return fmt.Errorf("find %s EK certificate, which this host had before: %w (to change to another key, name it in the configuration)",
			p.recorded.name, tpm.ErrNoCertificate)
	default:
		return fmt.Errorf("find EK certificate: %w", tpm.ErrNoCertificate)
	}
}

// filedKey is the key of the certificate that the configuration brings, if the
// TPM has it.
func (p *Prover) filedKey(ctx context.Context) (*endorsementKey, error) {
	ek, err := parseEndorsementKey(p.config.EKCertificate, fromFile)
	if err != nil {
		return nil, err
	}
	if err := p.tpm.WithPrimary(ctx, ek.primary(), func(tpm.Key) error { return nil }); err != nil {
		return nil, fmt.Errorf("find endorsement key of the certificate: %w", err)
	}
	return ek, nil
}

// uncertifiedKey has the TPM make the key of the first candidate's template.
func (p *Prover) uncertifiedKey(ctx context.Context) (ek *endorsementKey, err error) {
	c := p.candidates()[0]
	parse := func(public []byte) (*endorsementKey, error) {
		parsed, err := parsePublic(public)
		if err == nil && parsed.class.name != c.name {
			err = fmt.Errorf("a %s key", parsed.class.name)
		}
		return parsed, err
	}
	err = p.tpm.WithPrimary(ctx, tpm.Primary{Template: c.template(), Handle: c.handle, Accept: func(public []byte) error {
		_, err := parse(public)
		return err
	}}, func(key tpm.Key) (err error) {
		ek, err = parse(key.Public())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make %s endorsement key: %w", c.name, err)
	}
	return ek, nil
}

// parsePublic takes the public area (TPMT_PUBLIC) of a key in the TPM for an
// endorsement key, if it is exactly one of the standard templates.
func parsePublic(public []byte) (*endorsementKey, error) {
	parsed, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*parsed)
	if err != nil {
		return nil, err
	}
	ek, err := newEndorsementKey(key)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(ek.public), public) { // built by us from a template
		return nil, errors.New("not of a standard template")
	}
	return ek, nil
}
