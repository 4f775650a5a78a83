// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// A class is a kind of endorsement key and where a TPM keeps it: the NV index
// of its certificate and the persistent handle it may have (TCG EK Credential
// Profile 2.5, section 2.2.1.4; TCG PC Client Platform TPM Profile; TCG
// Registry of Reserved TPM 2.0 Handles).
type class struct {
	name   string
	index  tpm2.TPMHandle
	handle tpm2.TPMHandle
	// branches are those of the key's TPM2_PolicyOR, if its policy has one.
	branches [][]byte
	// unique is the template's, which seeds the making of the key.
	unique func() tpm2.TPMUPublicID
}

// classes are in the order in which "auto" looks for a certificate.
var classes = []class{
	{name: "rsa2048", index: 0x1c00002, handle: 0x81010001, unique: func() tpm2.TPMUPublicID {
		return tpm2.RSAEKTemplate.Unique
	}},
	{name: "p256", index: 0x1c0000a, handle: 0x8101000a, unique: func() tpm2.TPMUPublicID {
		return tpm2.ECCEKTemplate.Unique
	}},
	{name: "p384", index: 0x1c00016, handle: 0x81010016, branches: [][]byte{attest.EKPolicyA384, attest.EKPolicyC384},
		unique: func() tpm2.TPMUPublicID {
			return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
		}},
}

func classNamed(name string) *class {
	for i := range classes {
		if classes[i].name == name {
			return &classes[i]
		}
	}
	return nil
}

func classOf(key crypto.PublicKey) *class {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return classNamed("rsa2048")
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return classNamed("p256")
		case elliptic.P384():
			return classNamed("p384")
		}
	}
	return nil
}

// keys are the two keys that prove this host.
type keys struct {
	ek     *endorsementKey
	ak     *attest.AK
	handle tpm2.TPMHandle // where the AK is persistent; 0 is nowhere
}

// same says whether other are the same keys, wherever they lie.
func (k *keys) same(other *keys) bool {
	return bytes.Equal(k.ek.certificate, other.ek.certificate) && bytes.Equal(k.ak.Public(), other.ak.Public())
}

// An endorsementKey is what its certificate says.
type endorsementKey struct {
	class       *class
	certificate []byte // DER
	id          attest.TPMID
	public      tpm2.TPMTPublic
}

// parseEndorsementKey reads a certificate for what it says of the key. Whether
// it is to be believed is the server's business.
func parseEndorsementKey(der []byte) (*endorsementKey, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse EK certificate: %w", err)
	}
	public, err := attest.EKPublic(certificate.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("use EK certificate: %w", err)
	}
	id, err := attest.NewTPMID(certificate.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("use EK certificate: %w", err)
	}
	return &endorsementKey{class: classOf(certificate.PublicKey), certificate: der, id: id, public: *public}, nil
}

// errAnotherKey says that a key in the TPM is not the one looked for.
var errAnotherKey = errors.New("the endorsement key in the TPM is not the one of its certificate")

// primary says how the TPM finds or makes the key.
func (ek *endorsementKey) primary() tpm.Primary {
	template := ek.public
	template.Unique = ek.class.unique()
	want := tpm2.Marshal(ek.public) // built by us from a template, not received
	return tpm.Primary{Template: template, Handle: ek.class.handle, Accept: func(public []byte) error {
		if !bytes.Equal(public, want) {
			return errAnotherKey
		}
		return nil
	}}
}

// akPrimary says how the TPM finds or makes the attestation key.
func akPrimary() tpm.Primary {
	return tpm.Primary{Template: attest.AKTemplate(), Handle: attest.AKHandle, Accept: func(public []byte) error {
		_, err := attest.ParseAK(public)
		return err
	}}
}

// endorsementKey reads the certificate of the configured class, of the one on
// record, or of the first that has one. A certificate that is there but cannot
// be read is an error: passing on to the next would change who this host is.
func (p *Prover) endorsementKey(ctx context.Context) (*endorsementKey, error) {
	candidates := classes
	if !p.config.auto() {
		candidates = []class{*classNamed(p.config.EK)}
	} else if p.recorded != nil {
		candidates = []class{*p.recorded}
	}
	for _, c := range candidates {
		der, err := p.tpm.ReadCertificate(ctx, c.index)
		if errors.Is(err, tpm.ErrNoCertificate) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s EK certificate: %w", c.name, err)
		}
		ek, err := parseEndorsementKey(der)
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

// attestationKey finds or makes the AK, and keeps it in the TPM where the
// owner lets us and the handle is free. handle is 0 where not.
func (p *Prover) attestationKey(ctx context.Context) (ak *attest.AK, handle tpm2.TPMHandle, err error) {
	err = p.tpm.WithPrimary(ctx, akPrimary(), func(key tpm.Key) (err error) {
		if ak, err = attest.ParseAK(key.Public()); err != nil {
			return err
		}
		if key.Persistent() || p.tpm.Persist(ctx, key, attest.AKHandle) == nil {
			handle = attest.AKHandle
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, 0, fmt.Errorf("find attestation key: %w", err)
	}
	return ak, handle, nil
}

// withAK runs fn with the attestation key. Where it is persistent that costs
// no command: a record that is wrong shows when its signature does not verify.
func (p *Prover) withAK(ctx context.Context, fn func(tpm.Key) error) error {
	if p.keys.handle != 0 {
		key, err := tpm.KnownKey(p.keys.handle, p.keys.ak.Public())
		if err != nil {
			return err
		}
		return fn(key)
	}
	primary := akPrimary()
	primary.Handle = 0
	return p.tpm.WithPrimary(ctx, primary, fn)
}
