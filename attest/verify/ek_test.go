// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/attest/verify/provertest"
	"funlab.casa/omen/tpmsim"
)

// What swtpm's own vendor certifies is accepted, and is the key in the TPM.
func TestCheckEKOfSWTPM(t *testing.T) {
	tpm, ca := tpmsim.Start(t), tpmsim.TestCA(t)
	vendor, err := verify.ParseRoots(hardware(ca.PEM()), nil)
	check(t, err)
	for name, device := range map[string]*provertest.Device{
		"RSA-2048": provertest.RSA(t, tpm),
		"P-384":    provertest.P384(t, tpm),
	} {
		t.Run(name, func(t *testing.T) {
			ek, err := verify.CheckEK(device.EKCertificate, nil, vendor, time.Now())
			wantRule(t, err, "")
			if ek.Certificate != sha256.Sum256(device.EKCertificate) {
				t.Error("certificate hash is not over the DER in NV")
			}
			if id, err := attest.NewTPMID(ek.Key); err != nil || id != ek.TPMID {
				t.Errorf("TPM ID %s, want %s (%v)", ek.TPMID, id, err)
			}
			secret := []byte("0123456789abcdef0123456789abcdef")
			c, err := verify.Credential(rand.Reader, ek, device.AK, secret)
			check(t, err)
			if got := device.Unwrap(t, c); !bytes.Equal(got, secret) {
				t.Errorf("TPM unwraps %x", got)
			}
		})
	}
}

// swtpm makes no certificate for a P-256 endorsement key, so the vendor is asked
// for one; the TPM makes the key from the same template.
func TestCredentialForP256(t *testing.T) {
	ca := tpmsim.TestCA(t)
	device := provertest.P256(t, tpmsim.Start(t), ca.Issue)
	vendor, err := verify.ParseRoots(hardware(ca.PEM()), nil)
	check(t, err)
	ek, err := verify.CheckEK(device.EKCertificate, nil, vendor, time.Now())
	wantRule(t, err, "")
	secret := []byte("0123456789abcdef0123456789abcdef")
	c, err := verify.Credential(rand.Reader, ek, device.AK, secret)
	check(t, err)
	if got := device.Unwrap(t, c); !bytes.Equal(got, secret) {
		t.Errorf("TPM unwraps %x", got)
	}
}

func TestCheckEKHandlesWhatNVHolds(t *testing.T) {
	c := newCast(t)
	der := c.liar.EKCertificate
	header := append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...)
	for name, nv := range map[string][]byte{
		"DER":            der,
		"trailing zeros": append(bytes.Clone(der), make([]byte, 500)...),
		"trailing 0xff":  append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 500)...),
		"NV header":      header,
	} {
		t.Run(name, func(t *testing.T) {
			ek, err := verify.CheckEK(nv, nil, roots(t, c.vendor.PEM()), time.Now())
			wantRule(t, err, "")
			if ek.Certificate != sha256.Sum256(der) {
				t.Error("certificate hash depends on padding")
			}
		})
	}
}

// Each row bends one thing of a good certificate.
func TestCheckEKRefuses(t *testing.T) {
	c := newCast(t)
	public := c.liar.EK.Public()
	weak, err := rsa.GenerateKey(rand.Reader, 3072)
	check(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	check(t, err)
	bent := func(bend func(*x509.Certificate)) []byte { return c.vendor.Certify(t, public, bend) }
	unknown := func(critical bool) func(*x509.Certificate) {
		return func(x *x509.Certificate) {
			x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: critical, Value: []byte{5, 0}})
		}
	}
	for _, row := range []struct {
		name string
		der  []byte
		want attest.Rule
	}{
		{"good", bent(nil), ""},
		{"unknown extension, not critical", bent(unknown(false)), ""},
		{"unknown extension, critical", bent(unknown(true)), attest.RuleEKCertificate},
		{"absent", nil, attest.RuleEKCertificate},
		{"too large", make([]byte, attest.MaxCertificate+1), attest.RuleSize},
		{"malformed", []byte{0x30, 0x82, 0xff, 0xff, 0x02}, attest.RuleEKCertificate},
		{"cut", c.liar.EKCertificate[:len(c.liar.EKCertificate)-1], attest.RuleEKCertificate},
		{"NV header that lies", []byte{0x10, 0x01, 0x00, 0xff, 0xff, 0x30}, attest.RuleEKCertificate},
		{"signature bent", flip(c.liar.EKCertificate, -1), attest.RuleEKCertificate},
		{"self-signed", provertest.SelfSign(t, c.liar.EK), attest.RuleEKCertificate},
		{"foreign root", provertest.NewVendor(t).Certify(t, public, nil), attest.RuleEKCertificate},
		{"expired", bent(func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }), attest.RuleEKCertificate},
		{"not yet valid", bent(func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Minute) }), attest.RuleEKCertificate},
		{"no TCG EKU", bent(func(x *x509.Certificate) { x.UnknownExtKeyUsage = nil }), attest.RuleEKCertificate},
		{"server certificate", bent(func(x *x509.Certificate) {
			x.UnknownExtKeyUsage, x.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), attest.RuleEKCertificate},
		{"CA", bent(func(x *x509.Certificate) { x.IsCA = true; x.KeyUsage |= x509.KeyUsageCertSign }), attest.RuleEKCertificate},
		{"no subjectAltName", bent(func(x *x509.Certificate) { x.ExtraExtensions = nil }), attest.RuleEKCertificate},
		{"no basic constraints", bent(func(x *x509.Certificate) { x.BasicConstraintsValid = false }), attest.RuleEKCertificate},
		{"signing key usage", bent(func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageDigitalSignature }), attest.RuleEKCertificate},
		{"RSA-3072", c.vendor.Certify(t, weak.Public(), nil), attest.RuleEKWeak},
		{"exponent 3", c.vendor.Certify(t, &rsa.PublicKey{N: c.liar.EK.N, E: 3}, nil), attest.RuleEKWeak},
		{"P-521", c.vendor.Certify(t, p521.Public(), nil), attest.RuleEKWeak},
		{"ROCA", c.vendor.Certify(t, &rsa.PublicKey{N: rocaModulus(t), E: 65537}, nil), attest.RuleEKWeak},
	} {
		t.Run(row.name, func(t *testing.T) {
			ek, err := verify.CheckEK(row.der, nil, roots(t, c.vendor.PEM()), time.Now())
			wantRule(t, err, row.want)
			if (ek == nil) != (row.want != "") {
				t.Errorf("EK %v with %v", ek, err)
			}
		})
	}
}

func TestCheckEKGoesByTheTimeItIsGiven(t *testing.T) {
	c := newCast(t)
	vendor := roots(t, c.vendor.PEM())
	_, err := verify.CheckEK(c.liar.EKCertificate, nil, vendor, time.Now().Add(48*time.Hour))
	wantRule(t, err, attest.RuleEKCertificate)
	_, err = verify.CheckEK(c.liar.EKCertificate, nil, vendor, time.Now().Add(-48*time.Hour))
	wantRule(t, err, attest.RuleEKCertificate)
}

func TestCheckEKWithoutRoots(t *testing.T) {
	c := newCast(t)
	for _, r := range []*verify.Roots{nil, {}, roots(t, "")} {
		_, err := verify.CheckEK(c.liar.EKCertificate, nil, r, time.Now())
		wantRule(t, err, attest.RuleEKCertificate)
	}
}

// A root that is the EK's own certificate is nobody's word for the TPM.
func TestCheckEKPinnedAsItsOwnRoot(t *testing.T) {
	c := newCast(t)
	certificate, err := x509.ParseCertificate(c.liar.EKCertificate)
	check(t, err)
	own := &provertest.Vendor{Vendor: &attacker.Vendor{Certificate: certificate}}
	_, err = verify.CheckEK(c.liar.EKCertificate, nil, roots(t, own.PEM()), time.Now())
	wantRule(t, err, attest.RuleEKCertificate)
}

func TestCheckEKIntermediates(t *testing.T) {
	c := newCast(t)
	line := []*provertest.Vendor{c.vendor}
	for range 5 {
		line = append(line, line[len(line)-1].Intermediate(t))
	}
	certify := func(depth int) []byte { return line[depth].Certify(t, c.liar.EK.Public(), nil) }
	der := func(from, to int) (list [][]byte) {
		for _, v := range line[from : to+1] {
			list = append(list, v.Certificate.Raw)
		}
		return list
	}
	var all string
	for _, v := range line[1:] {
		all += v.PEM()
	}
	configured, err := verify.ParseRoots(hardware([]byte(c.vendor.PEM())), []byte(all))
	check(t, err)
	plain := roots(t, c.vendor.PEM())
	for _, row := range []struct {
		name  string
		ek    []byte
		sent  [][]byte
		roots *verify.Roots
		want  attest.Rule
	}{
		{"sent", certify(1), der(1, 1), plain, ""},
		{"four sent", certify(4), der(1, 4), plain, ""},
		{"configured", certify(4), nil, configured, ""},
		{"half sent, half configured", certify(2), der(2, 2), configured, ""},
		{"missing", certify(1), nil, plain, attest.RuleEKCertificate},
		{"one of two missing", certify(2), der(2, 2), plain, attest.RuleEKCertificate},
		{"five sent", certify(5), der(1, 5), plain, attest.RuleSize},
		{"chain too long", certify(5), nil, configured, attest.RuleEKCertificate},
		{"a root that was sent is no root", provertest.NewVendor(t).Certify(t, c.liar.EK.Public(), nil), der(0, 0), plain, attest.RuleEKCertificate},
		{"too large", certify(1), [][]byte{make([]byte, attest.MaxCertificate+1)}, plain, attest.RuleSize},
		{"malformed", certify(1), [][]byte{{0x30, 1}}, plain, attest.RuleEKCertificate},
		{"weak key", certify(1), append(der(1, 1), weakIntermediate(t)), plain, attest.RuleEKCertificate},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := verify.CheckEK(row.ek, row.sent, row.roots, time.Now())
			wantRule(t, err, row.want)
		})
	}
}

func TestParseRoots(t *testing.T) {
	c := newCast(t)
	good := c.vendor.PEM()
	for _, row := range []struct {
		name, roots string
		good        bool
	}{
		{"empty", "", true},
		{"one", good, true},
		{"two with words before each", "Vendor root\n" + good + "Vendor root 2\n" + good, true},
		{"words after", good + "rest", false},
		{"no PEM", "rest", false},
		{"key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", false},
		{"damaged before a good one", strings.Replace(good, "MII", "M*I", 1) + good, false},
		{"cut before a good one", good[:200] + "\n" + good, false},
		{"without BEGIN before a good one", good[20:] + good, false},
		{"not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", false},
	} {
		for _, order := range [][2]string{{row.roots, ""}, {"", row.roots}} {
			_, err := verify.ParseRoots(hardware([]byte(order[0])), []byte(order[1]))
			if (err == nil) != row.good {
				t.Errorf("%s: %v", row.name, err)
			}
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}

func weakIntermediate(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	return provertest.SelfSign(t, crypto.Signer(key))
}

// rocaModulus makes a modulus the way the flawed generator does: both primes
// k·M + (65537^a mod M), M being the product of the first 126 primes.
func rocaModulus(t testing.TB) *big.Int {
	t.Helper()
	m := big.NewInt(1)
	for n, found := int64(2), 0; found < 126; n++ {
		if big.NewInt(n).ProbablyPrime(0) {
			m.Mul(m, big.NewInt(n))
			found++
		}
	}
	for {
		n := new(big.Int).Mul(rocaPrime(t, m), rocaPrime(t, m))
		if n.BitLen() == 2048 {
			return n
		}
	}
}

func rocaPrime(t testing.TB, m *big.Int) *big.Int {
	t.Helper()
	for {
		a, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
		check(t, err)
		p := new(big.Int).Exp(big.NewInt(65537), a, m)
		k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1024-m.BitLen())))
		check(t, err)
		p.Add(p, k.Mul(k, m))
		if p.BitLen() == 1024 && p.ProbablyPrime(4) {
			return p
		}
	}
}
