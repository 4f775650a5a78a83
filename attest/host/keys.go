// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
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
	// template makes the key (TCG EK Credential Profile 2.5, annex B).
	template func() tpm2.TPMTPublic
}

// classes are in the order in which "auto" looks for a certificate.
var classes = []class{
	{name: "rsa2048", index: 0x1c00002, handle: 0x81010001, template: func() tpm2.TPMTPublic { return tpm2.RSAEKTemplate }},
	{name: "p256", index: 0x1c0000a, handle: 0x8101000a, template: func() tpm2.TPMTPublic { return tpm2.ECCEKTemplate }},
	{name: "p384", index: 0x1c00016, handle: 0x81010016, template: templateP384,
		branches: [][]byte{attest.EKPolicyA384, attest.EKPolicyC384}},
}

// templateP384 is template H-3: the seam's public area of any key of the class,
// with an empty point.
func templateP384() tpm2.TPMTPublic {
	scalar := make([]byte, 48)
	scalar[47] = 1
	var public *tpm2.TPMTPublic
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), scalar) // the generator's: any point will do
	if err == nil {
		public, err = attest.EKPublic(key.Public())
	}
	if err != nil {
		panic(err) // the generator is on its curve
	}
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return *public
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

// same says whether other are the same keys, wherever they lie, said in the same
// way.
func (k *keys) same(other *keys) bool {
	return k.ek.id == other.ek.id && bytes.Equal(k.ek.certificate, other.ek.certificate) &&
		bytes.Equal(k.ak.Public(), other.ak.Public())
}

// akPrimary says how the TPM finds or makes the attestation key.
func akPrimary() tpm.Primary {
	return tpm.Primary{Template: attest.AKTemplate(), Handle: attest.AKHandle, Accept: func(public []byte) error {
		_, err := attest.ParseAK(public)
		return err
	}}
}

// attestationKey finds or makes the AK, and keeps it in the TPM where the
// owner lets us and the handle is free. handle is 0 where not.
func (p *Prover) attestationKey(ctx context.Context) (ak *attest.AK, handle tpm2.TPMHandle, err error) {
	err = p.tpm.WithPrimary(ctx, akPrimary(), func(key tpm.Key) (err error) {
		if ak, err = attest.ParseAK(key.Public()); err != nil {
			return err
		}
		if key.Persistent() || !p.config.LookOnly && p.tpm.Persist(ctx, key, attest.AKHandle) == nil {
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
