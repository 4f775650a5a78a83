// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

const (
	threatAK    = "AK unrestricted, exportable, imported, decrypting, wrong curve, scheme or policy, trailing bytes, a client-sent Name"
	threatOther = "another program's restricted AK; a provider's AK swapped by an administrator"
	threatEKAK  = "AK of one TPM with the EK of another; activation answered for another AK"
)

// shaped is an attack by an AK of another template.
func shaped(name, threat string, bend func(*tpm2.TPMTPublic)) Attack {
	return asked("ak-shape/"+name, threat, attest.RuleAKShape, func(_ *Scene, m *attest.ChallengeRequest) error {
		template := attest.AKTemplate()
		bend(&template)
		ak, err := NewAKOf(template)
		if err == nil {
			m.AKPublic = ak.Public
		}
		return err
	})
}

func akAttacks() []Attack {
	attribute := func(name string, bend func(*tpm2.TPMAObject)) Attack {
		return shaped(name, threatAK, func(p *tpm2.TPMTPublic) { bend(&p.ObjectAttributes) })
	}
	ecc := func(name string, bend func(*tpm2.TPMSECCParms)) Attack {
		return shaped(name, threatAK, func(p *tpm2.TPMTPublic) {
			if parameters, err := p.Parameters.ECCDetail(); err == nil { // always: our template is ECC
				changed := *parameters
				bend(&changed)
				p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &changed)
			}
		})
	}
	return []Attack{
		attribute("unrestricted", func(a *tpm2.TPMAObject) { a.Restricted = false }),
		attribute("exportable", func(a *tpm2.TPMAObject) { a.FixedTPM = false }),
		attribute("parent may change", func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent = false, false }),
		attribute("imported", func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false }),
		attribute("decrypting", func(a *tpm2.TPMAObject) { a.Decrypt = true }),
		attribute("decrypting only", func(a *tpm2.TPMAObject) { a.Decrypt, a.SignEncrypt = true, false }),
		attribute("lost at reset", func(a *tpm2.TPMAObject) { a.STClear = true }),
		attribute("without userWithAuth", func(a *tpm2.TPMAObject) { a.UserWithAuth = false }),
		attribute("admin by policy", func(a *tpm2.TPMAObject) { a.AdminWithPolicy = true }),
		attribute("protected by lock-out", func(a *tpm2.TPMAObject) { a.NoDA = false }),
		attribute("encrypted duplication", func(a *tpm2.TPMAObject) { a.EncryptedDuplication = true }),
		shaped("without policy", threatOther, func(p *tpm2.TPMTPublic) { p.AuthPolicy = tpm2.TPM2BDigest{} }),
		shaped("another policy", threatOther, func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = flip(p.AuthPolicy.Buffer, 0) }),
		shaped("Name by SHA-384", threatAK, func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA384 }),
		shaped("RSA", threatOther, rsaAK),
		ecc("P-384", func(p *tpm2.TPMSECCParms) { p.CurveID = tpm2.TPMECCNistP384 }),
		ecc("P-521", func(p *tpm2.TPMSECCParms) { p.CurveID = tpm2.TPMECCNistP521 }),
		ecc("any scheme", scheme(tpm2.TPMAlgNull, 0)),
		ecc("ECDSA with SHA-1", scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA1)),
		ecc("ECDSA with SHA-384", scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA384)),
		ecc("ECDAA", scheme(tpm2.TPMAlgECDAA, tpm2.TPMAlgSHA256)),
	}
}

// scheme gives an ECC key another signing scheme.
func scheme(scheme, hash tpm2.TPMAlgID) func(*tpm2.TPMSECCParms) {
	return func(p *tpm2.TPMSECCParms) {
		p.Scheme = tpm2.TPMTECCScheme{Scheme: scheme}
		switch scheme {
		case tpm2.TPMAlgECDSA:
			p.Scheme.Details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})
		case tpm2.TPMAlgECDAA:
			p.Scheme.Details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSchemeECDAA{HashAlg: hash})
		}
	}
}

func akEncodingAttacks() []Attack {
	raw := func(name string, bend func([]byte) []byte) Attack {
		return asked("ak-shape/"+name, threatAK, attest.RuleAKShape, func(_ *Scene, m *attest.ChallengeRequest) error {
			m.AKPublic = bend(m.AKPublic)
			return nil
		})
	}
	return []Attack{
		raw("trailing byte", func(b []byte) []byte { return append(b, 0) }),
		raw("cut", func(b []byte) []byte { return b[:len(b)-1] }),
		raw("one byte", func(b []byte) []byte { return b[:1] }),
		raw("zeros", func(b []byte) []byte { return make([]byte, len(b)) }),
		raw("in a TPM2B", func(b []byte) []byte { return sized(nil, b) }),
		raw("a Name", nameOf),
		raw("twice", func(b []byte) []byte { return append(b, b...) }),
		raw("point off the curve", func(b []byte) []byte { return flip(b, -1) }),
		raw("point at infinity", func(b []byte) []byte { return withPoint(b, make([]byte, 32), make([]byte, 32)) }),
		raw("coordinate above the prime", func(b []byte) []byte {
			return withPoint(b, bytes.Repeat([]byte{0xff}, 32), b[len(b)-32:])
		}),
		raw("size of x lies", func(b []byte) []byte {
			b[len(b)-68] = 0xff
			return b
		}),
		asked("ak-shape/SubjectPublicKeyInfo", threatAK, attest.RuleAKShape, func(s *Scene, m *attest.ChallengeRequest) (err error) {
			m.AKPublic, err = x509.MarshalPKIXPublicKey(s.Host.AK.Key.Public())
			return err
		}),
	}
}

func residenceAttacks() []Attack {
	return []Attack{
		{Name: "ek-ak/EK of another TPM", Threat: threatEKAK, Rule: attest.RuleEKAK, Prepare: ekOfHost},
		{Name: "ek-ak/EK of another TPM, its AK too", Threat: threatEKAK, Rule: attest.RuleSignature, Prepare: bothOfHost},
		{Name: "ek-ak/AK of another TPM", Threat: threatEKAK, Rule: attest.RuleSignature, Prepare: akOfHost},
		{Name: "ek-ak/answered for another AK", Threat: threatEKAK, Rule: attest.RuleSignature, Prepare: anotherAK},
		{Name: "tpm-taken/second EK, pinned AK", Threat: "one TPM, two EKs, two names", Rule: attest.RuleTPMTaken, Pinned: true, Prepare: secondEK},
		guessed("zeros", make([]byte, attest.SecretSize)),
		guessed("too short", []byte{0}),
	}
}

// rsaAK makes the template that of a restricted RSA-2048 signing key.
func rsaAK(p *tpm2.TPMTPublic) {
	p.Type = tpm2.TPMAlgRSA
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: 2048,
	})
}

// withPoint gives a TPMT_PUBLIC on P-256 another point.
func withPoint(public, x, y []byte) []byte {
	size := (elliptic.P256().Params().BitSize + 7) / 8
	return sized(sized(bytes.Clone(public[:len(public)-2*(2+size)]), x), y)
}

// guessed answers without having unwrapped the secret.
func guessed(name string, secret []byte) Attack {
	return lied("ek-ak/secret guessed: "+name, threatEKAK, attest.RuleFreshness, func(_ *Scene, l *Login) { l.Secret = secret }).first(attest.RuleEKAK)
}

// ekOfHost has a stranger show the host's EK, which is public, with an AK of its
// own.
func ekOfHost(_ context.Context, s *Scene) (Attempt, error) {
	thief := s.Stranger.Clone()
	thief.EKCertificate, thief.Intermediates = s.Host.EKCertificate, s.Host.Intermediates
	return s.tried(thief, s.login(func(l *Login) { l.Secret = make([]byte, attest.SecretSize) })), nil
}

// bothOfHost has a stranger show the host's EK and AK, and sign with its own.
func bothOfHost(_ context.Context, s *Scene) (Attempt, error) {
	thief := s.Host.Clone()
	thief.AK.Key = s.Stranger.AK.Key
	return s.tried(thief, s.login(func(l *Login) { l.Secret = make([]byte, attest.SecretSize) })), nil
}

// akOfHost has an enrolled host show its EK and the AK of another host.
func akOfHost(_ context.Context, s *Scene) (Attempt, error) {
	thief := s.Second.Clone()
	thief.AK.Public = s.Host.AK.Public
	return s.tried(thief, s.login()), nil
}

// anotherAK asks for one AK and answers with another one.
func anotherAK(ctx context.Context, s *Scene) (Attempt, error) {
	thief := s.Host.Clone()
	if err := thief.NewAK(); err != nil {
		return nil, err
	}
	c, err := s.Host.Challenge(ctx, s.Server, s.Role)
	if err != nil {
		return nil, err
	}
	l := s.login()
	if c.Kind == attest.KindActivate {
		if l.Secret, err = s.Host.Activate(c.Credential); err != nil {
			return nil, err
		}
	}
	m, err := thief.Answer(c, l)
	return s.sent(m), err
}

// secondEK has one machine with two enrolled EKs show one AK under both.
func secondEK(_ context.Context, s *Scene) (Attempt, error) {
	board := s.Second.Clone()
	board.AK = s.Host.AK
	return s.tried(board, s.login()), nil
}
