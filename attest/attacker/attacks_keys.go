// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"crypto/x509"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

const threatKey = "key claimed resident that this AK did not certify over this challenge, or with wrong attributes or Name"

// resident is an attack by a key said to be in the TPM; made bends the key's own
// template, lie what is said of it.
func resident(name string, made func(*tpm2.TPMTPublic), lie func(*Scene, *Login, *Key) error) Attack {
	a := Attack{Name: "key/" + name, Threat: threatKey, Rule: attest.RuleKey}
	return prepared(a, func(s *Scene, l *Login) error {
		k, err := NewKey(made)
		if err != nil {
			return err
		}
		l.Resident = []*Key{k}
		if lie == nil {
			return nil
		}
		return lie(s, l, k)
	})
}

func keyAttacks() []Attack {
	attribute := func(name string, bend func(*tpm2.TPMAObject)) Attack {
		return resident(name, func(p *tpm2.TPMTPublic) { bend(&p.ObjectAttributes) }, nil)
	}
	return []Attack{
		attribute("exportable", func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent = false, false }),
		attribute("imported", func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false }),
		attribute("restricted", func(a *tpm2.TPMAObject) { a.Restricted = true }),
		attribute("decrypting", func(a *tpm2.TPMAObject) { a.Decrypt = true }),
		resident("with a policy", func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) }, nil),
		resident("on P-384", func(p *tpm2.TPMTPublic) {
			*p = attest.KeyTemplate()
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
				Scheme:    tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
				CurveID:   tpm2.TPMECCNistP384,
				KDF:       tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
			})
		}, nil),
		resident("in software, another certified", nil, func(_ *Scene, _ *Login, k *Key) error {
			software, err := P256.Generate()
			if err == nil {
				k.SPKI, err = x509.MarshalPKIXPublicKey(software.Public())
			}
			return err
		}),
		resident("not a key", nil, func(_ *Scene, _ *Login, k *Key) error {
			k.SPKI = []byte{1}
			return nil
		}),
		resident("followed by a byte", nil, func(_ *Scene, _ *Login, k *Key) error {
			k.SPKI = append(k.SPKI, 0)
			return nil
		}),
		resident("RSA", nil, func(_ *Scene, _ *Login, k *Key) error {
			// A modulus of 1024 bits: one of 2048 is longer than a key may be.
			public, err := RSAKeyWithout(1024, 65537)
			if err == nil {
				k.SPKI, err = x509.MarshalPKIXPublicKey(public)
			}
			return err
		}),
	}
}

func certificationAttacks() []Attack {
	certify := func(name string, bend func(*Attestation)) Attack {
		return resident(name, nil, func(_ *Scene, l *Login, _ *Key) error {
			l.Certify = bend
			return nil
		})
	}
	binding := func(name string, bend func(*attest.Binding)) Attack {
		return resident(name, nil, func(_ *Scene, l *Login, _ *Key) error {
			l.CertifyBinding = bend
			return nil
		})
	}
	message := func(name string, bend func(*attest.Certification)) Attack {
		return resident(name, nil, func(_ *Scene, l *Login, _ *Key) error {
			l.Message = func(m *attest.LoginRequest) { bend(m.Certify[0]) }
			return nil
		})
	}
	return []Attack{
		resident("certified by another TPM", nil, func(s *Scene, l *Login, _ *Key) error {
			l.Message = func(m *attest.LoginRequest) { m.Certify[0].Signature, _ = s.Second.AK.Sign(m.Certify[0].Info) }
			return nil
		}),
		resident("certification exchanged", nil, func(_ *Scene, l *Login, _ *Key) error {
			second, err := NewKey(nil)
			l.Resident = append(l.Resident, second)
			l.Message = func(m *attest.LoginRequest) { m.Certify[0], m.Certify[1] = m.Certify[1], m.Certify[0] }
			return err
		}),
		resident("the quote as certification", nil, func(_ *Scene, l *Login, _ *Key) error {
			l.Message = func(m *attest.LoginRequest) {
				m.Certify[0] = &attest.Certification{Info: m.Quote, Signature: m.Signature}
			}
			return nil
		}),
		message("info bent", func(c *attest.Certification) { c.Info = flip(c.Info, -1) }),
		message("signature bent", func(c *attest.Certification) { c.Signature = flip(c.Signature, -1) }),
		message("one byte each", func(c *attest.Certification) { c.Info, c.Signature = []byte{0}, []byte{0} }),
		certify("magic of a software key", func(a *Attestation) { a.Magic = 0 }),
		certify("creation", func(a *Attestation) { a.Type = uint16(tpm2.TPMSTAttestCreation) }),
		certify("quote that says certify", func(a *Attestation) { a.Attested = nil }),
		certify("trailing byte", func(a *Attestation) { a.Trailing = []byte{0} }),
		certify("signer elsewhere", func(a *Attestation) { a.Signer = flip(a.Signer, -1) }),
		certify("no extraData", func(a *Attestation) { a.ExtraData = nil }),
		certify("extraData bent", func(a *Attestation) { a.ExtraData = flip(a.ExtraData, 0) }),
		certify("Name bent", func(a *Attestation) { a.Attested = flip(a.Attested, 10) }),
		certify("no Name", func(a *Attestation) { a.Attested = make([]byte, 4) }),
		binding("over another challenge", func(b *attest.Binding) { b.Secret = bytes.Repeat([]byte{1}, attest.SecretSize) }),
		binding("for another server", func(b *attest.Binding) { b.Audience = "https://evil.example:8200||auth/tpm" }),
		binding("for the other kind", func(b *attest.Binding) { b.Kind += "?" }),
	}
}
