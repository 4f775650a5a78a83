// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"

	"funlab.casa/omen/attest"
)

const (
	threatEK    = "EK certificate self-signed, expired, without TCG EKU, a CA, key differs; malformed DER"
	threatChain = "EK certificate's chain too long, broken, or not to a believed root"
	threatWeak  = "weak or ROCA modulus, exponent other than 65537, point off the curve"
	threatBare  = "ek_public that is a software key"
)

// certified is an attack by a certificate in place of the host's.
func certified(name, threat string, rule attest.Rule, certify func(*Scene) ([]byte, error)) Attack {
	return asked(name, threat, rule, func(s *Scene, m *attest.ChallengeRequest) (err error) {
		m.EKCertificate, err = certify(s)
		return err
	})
}

func endorsementAttacks() []Attack {
	bent := func(name string, bend func(*x509.Certificate)) Attack {
		return certified("ek-certificate/"+name, threatEK, attest.RuleEKCertificate, func(s *Scene) ([]byte, error) {
			return s.Vendor.Certify(s.Host.EK.Public(), bend)
		})
	}
	der := func(name string, bend func([]byte) []byte) Attack {
		return certified("ek-certificate/"+name, threatEK, attest.RuleEKCertificate, func(s *Scene) ([]byte, error) {
			return bend(bytes.Clone(s.Host.EKCertificate)), nil
		})
	}
	raw := func(name string, bend func(*TBSCertificate)) Attack {
		return certified("ek-certificate/"+name, threatEK, attest.RuleEKCertificate, func(s *Scene) ([]byte, error) {
			return s.Vendor.CertifyRaw(s.Host.EK.Public(), bend)
		})
	}
	return []Attack{
		certified("ek-certificate/self-signed", threatEK, attest.RuleEKCertificate, func(s *Scene) ([]byte, error) { return SelfSign(s.Host.EK) }),
		bent("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		bent("not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
		bent("without TCG EKU", func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }),
		bent("of a web server", func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
		bent("a CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }),
		bent("without subjectAltName", func(c *x509.Certificate) { c.ExtraExtensions = nil }),
		bent("key usage of a signature", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }),
		bent("unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
				Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0},
			})
		}),
		raw("version 1", func(c *TBSCertificate) { c.Version, c.Extensions = 0, nil }),
		raw("extension twice", func(c *TBSCertificate) { c.Extensions = append(c.Extensions, c.Extensions[0]) }),
		der("signature bent", func(b []byte) []byte { return flip(b, -1) }),
		der("serial bent", func(b []byte) []byte { return flip(b, 20) }),
		der("cut", func(b []byte) []byte { return b[:len(b)-1] }),
		der("length that lies", func([]byte) []byte { return []byte{0x30, 0x82, 0xff, 0xff, 0x02} }),
		der("indefinite length", func([]byte) []byte { return []byte{0x30, 0x80} }),
		der("deep nesting", func([]byte) []byte { return bytes.Repeat([]byte{0x30, 0x80}, 2000) }),
		der("zeros", func(b []byte) []byte { return make([]byte, len(b)) }),
		der("PEM", func(b []byte) []byte { return []byte("-----BEGIN CERTIFICATE-----\n" + string(b)) }),
		der("NV header that lies", func([]byte) []byte { return []byte{0x10, 0x01, 0x00, 0xff, 0xff, 0x30} }),
		{Name: "ek-certificate/of another TPM", Threat: threatEKAK, Rule: attest.RuleEKAK, Prepare: certificateOfSecond},
	}
}

// certificateOfSecond has the host show the certificate of another host.
func certificateOfSecond(_ context.Context, s *Scene) (Attempt, error) {
	thief := s.Host.Clone()
	thief.EKCertificate = s.Second.EKCertificate
	return s.tried(thief, s.login(func(l *Login) { l.Secret = make([]byte, attest.SecretSize) })), nil
}

func chainAttacks() []Attack {
	by := func(name string, issuer func(*Scene) (*Vendor, error), send func(*Vendor) [][]byte) Attack {
		return asked("ek-certificate/"+name, threatChain, attest.RuleEKCertificate, func(s *Scene, m *attest.ChallengeRequest) error {
			v, err := issuer(s)
			if err != nil {
				return err
			}
			m.EKCertificate, err = v.Certify(s.Host.EK.Public())
			m.Intermediates = send(v)
			return err
		})
	}
	none := func(*Vendor) [][]byte { return nil }
	own := func(v *Vendor) [][]byte { return [][]byte{v.Certificate.Raw} }
	stranger := func(*Scene) (*Vendor, error) { return NewVendor(P256) }
	intermediate := func(bends ...Bend) func(*Scene) (*Vendor, error) {
		return func(s *Scene) (*Vendor, error) { return s.Vendor.Intermediate(P256, bends...) }
	}
	return []Attack{
		by("of an unknown root", stranger, none),
		by("of an unknown root that is sent", stranger, own),
		by("of a root with a believed one's name", func(s *Scene) (*Vendor, error) { return s.Vendor.Impostor() }, none),
		by("of such a root that is sent", func(s *Scene) (*Vendor, error) { return s.Vendor.Impostor() }, own),
		by("intermediate missing", intermediate(), none),
		by("intermediate expired", intermediate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), (*Vendor).Chain),
		by("intermediate no CA", intermediate(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), (*Vendor).Chain),
		by("intermediate may not certify", intermediate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), (*Vendor).Chain),
		by("path longer than allowed", func(s *Scene) (*Vendor, error) {
			v, err := s.Vendor.Intermediate(P256, func(c *x509.Certificate) { c.MaxPathLenZero = true })
			if err != nil {
				return nil, err
			}
			return v.Intermediate(P256)
		}, (*Vendor).Chain),
		by("issued by another EK", func(s *Scene) (*Vendor, error) { return IssuedBy(s.Second.EKCertificate, s.Second.EK, s.Vendor) }, own),
		by("intermediate weak", func(s *Scene) (*Vendor, error) {
			key, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // weak is the point
			if err != nil {
				return nil, err
			}
			return vendorWithKey(key, s.Vendor, nil)
		}, (*Vendor).Chain),
		by("intermediate malformed", intermediate(), func(v *Vendor) [][]byte { return [][]byte{v.Certificate.Raw, {0x30, 1}} }),
		by("intermediate cut", intermediate(), func(v *Vendor) [][]byte { return [][]byte{v.Certificate.Raw[:100]} }),
	}
}

// keys that prove nothing.
var (
	exponent3 = func() (crypto.PublicKey, error) { return RSAKeyWithout(2048, 3) }
	rsa1024   = func() (crypto.PublicKey, error) { return RSAKeyWithout(1024, 65537) }
	rsa3072   = func() (crypto.PublicKey, error) { return RSAKeyWithout(3072, 65537) }
	roca      = func() (crypto.PublicKey, error) { return ROCAKey() }
	p521      = func() (crypto.PublicKey, error) { return onCurve(elliptic.P521()) }
	p224      = func() (crypto.PublicKey, error) { return onCurve(elliptic.P224()) }
	edwards   = func() (crypto.PublicKey, error) {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		return public, err
	}
)

func onCurve(c elliptic.Curve) (crypto.PublicKey, error) {
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

func weakAttacks() []Attack {
	weak := func(name string, key func() (crypto.PublicKey, error)) Attack {
		return certified("ek-weak/"+name, threatWeak, attest.RuleEKWeak, func(s *Scene) ([]byte, error) {
			public, err := key()
			if err != nil {
				return nil, err
			}
			return s.Vendor.Certify(public)
		})
	}
	return []Attack{
		weak("exponent 3", exponent3), weak("RSA-1024", rsa1024), weak("RSA-3072", rsa3072), weak("ROCA", roca), weak("P-521", p521), weak("P-224", p224),
		// A key that no TPM of the profile has may be refused with its certificate.
		weak("Ed25519", edwards).also(attest.RuleEKCertificate),
		certified("ek-weak/off the curve", threatWeak, attest.RuleEKWeak, func(s *Scene) ([]byte, error) {
			spki, err := OffCurve()
			if err != nil {
				return nil, err
			}
			public, err := onCurve(elliptic.P256())
			if err != nil {
				return nil, err
			}
			return s.Vendor.CertifyRaw(public, func(c *TBSCertificate) { c.PublicKey = asn1.RawValue{FullBytes: spki} })
		}).also(attest.RuleEKCertificate), // the certificate does not parse
	}
}

func uncertifiedAttacks() []Attack {
	bare := func(name string, rule attest.Rule, spki func(*Scene) ([]byte, error)) Attack {
		return asked("ek_public/"+name, threatBare, rule, func(s *Scene, m *attest.ChallengeRequest) (err error) {
			m.EKCertificate, m.Intermediates = nil, nil
			m.EKPublic, err = spki(s)
			return err
		})
	}
	weak := func(name string, key func() (crypto.PublicKey, error)) Attack {
		return bare(name, attest.RuleEKWeak, func(*Scene) ([]byte, error) {
			public, err := key()
			if err != nil {
				return nil, err
			}
			return x509.MarshalPKIXPublicKey(public)
		}).also(attest.RuleEKCertificate) // where the role takes certified keys only
	}
	// broken is a key that cannot be read.
	broken := func(name string, spki func() ([]byte, error)) Attack {
		return bare(name, attest.RuleSyntax, func(*Scene) ([]byte, error) { return spki() }).also(attest.RuleEKWeak, attest.RuleEKCertificate)
	}
	login := func(name string, bare func(*Scene) *TPM) Attack {
		return Attack{Name: "ek_public/" + name, Threat: threatBare, Rule: attest.RuleEKCertificate, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
			return s.tried(bare(s), s.login()), nil
		}}
	}
	return []Attack{
		login("software key", func(s *Scene) *TPM { return s.Stranger.Bare() }),
		login("host's own, certificate left out", func(s *Scene) *TPM { return s.Host.Bare() }),
		weak("exponent 3", exponent3), weak("RSA-1024", rsa1024), weak("RSA-3072", rsa3072), weak("ROCA", roca), weak("P-521", p521), weak("Ed25519", edwards),
		broken("off the curve", OffCurve),
		broken("not DER", func() ([]byte, error) { return []byte("not DER"), nil }),
		broken("zeros", func() ([]byte, error) { return make([]byte, 91), nil }),
		asked("ek_public/trailing byte", threatBare, attest.RuleSyntax, func(s *Scene, m *attest.ChallengeRequest) error {
			spki, err := s.Host.EKPublic()
			m.EKCertificate, m.Intermediates, m.EKPublic = nil, nil, append(spki, 0)
			return err
		}).also(attest.RuleEKWeak, attest.RuleEKCertificate),
		asked("ek_public/beside a certificate", threatBare, attest.RuleSyntax, func(s *Scene, m *attest.ChallengeRequest) (err error) {
			m.EKPublic, err = s.Second.EKPublic()
			return err
		}),
	}
}
