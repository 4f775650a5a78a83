// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	ekattest "github.com/google/go-attestation/attest"
	ekx509 "github.com/google/go-attestation/x509"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

// goAttestation is another judge of the shape of an EK certificate.
func goAttestation(der []byte) bool {
	c, err := ekattest.ParseEKCertificate(der)
	if err != nil {
		return false
	}
	ek, err := ekx509.ToEKCertificate(c)
	return err == nil && ek.HasEkcExtendedKeyUsage
}

// What real EK certificates have and what they must not get away with. judge is
// what go-attestation says: where it is false and rule is "", we take on purpose
// what it does not.
func TestCheckEKQuirks(t *testing.T) {
	c, ca := newCast(t), newAuthority(t, elliptic.P256())
	public := c.liar.EK.Public()
	good := ca.certify(t, public, nil)
	extra := func(e ...pkix.Extension) []byte {
		return ca.certify(t, public, func(x *x509.Certificate) { x.ExtraExtensions = e })
	}
	san := func(names ...asn1.RawValue) []byte { return extra(subjectAltName(t, true, names...)) }
	full := directoryName(t, tpmMaker, tpmModel, tpmVersion)
	organisation := attribute{asn1.ObjectIdentifier{2, 5, 4, 10}, "a vendor"}
	numeric := attribute{asn1.ObjectIdentifier{2, 23, 133, 2, 1}, 7}
	dns := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("spire")}
	together := full
	together.Bytes = oneRDN(t, tpmMaker, tpmModel, tpmVersion)
	noBasic := ca.certify(t, public, func(x *x509.Certificate) {
		x.BasicConstraintsValid = false
		x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}})
	})
	noUsage := ca.certify(t, public, func(x *x509.Certificate) {
		x.KeyUsage = 0
		x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 5, 0x20}})
	})
	moved := ca.withSerial(t, good, 1, 2, 3) // the issuer signed a positive number
	moved[bytes.Index(moved, []byte{asn1.TagInteger, 3, 1, 2, 3})+2] = 0x81
	for _, row := range []struct {
		name  string
		der   []byte
		want  attest.Rule
		judge bool
	}{
		{"good", good, "", true},
		{"negative serial number", ca.withSerial(t, good, 0x80, 1, 2, 3), "", false},
		{"serial number -1", ca.withSerial(t, good, 0xff), "", false},
		{"negative serial number of 20 octets", ca.withSerial(t, good, bytes.Repeat([]byte{0xaa}, 20)...), "", false},
		{"negative serial number, padded", append(ca.withSerial(t, good, 0x80, 1), 0xff, 0xff), "", false},
		{"negative serial number not in DER", ca.withSerial(t, good, 0xff, 0xff, 1), attest.RuleEKCertificate, false},
		{"negative serial number, signature bent", flip(ca.withSerial(t, good, 0x80, 1), -1), attest.RuleEKCertificate, false},
		{"negative serial number by another issuer", newAuthority(t, elliptic.P256()).withSerial(t, good, 0x80, 1), attest.RuleEKCertificate, false},
		{"serial number made negative afterwards", moved, attest.RuleEKCertificate, false},
		{"serial number 0", ca.withSerial(t, good, 0), "", false},
		{"serial number empty", ca.withSerial(t, good), attest.RuleEKCertificate, false},
		{"serial number not an integer", ca.again(t, good, func(f []asn1.RawValue) []asn1.RawValue {
			f[fieldSerial] = asn1.RawValue{Tag: asn1.TagOctetString, Bytes: []byte{1}}
			return f
		}), attest.RuleEKCertificate, false},
		{"version 1", ca.again(t, good, func(f []asn1.RawValue) []asn1.RawValue {
			return f[fieldSerial:fieldExtensions]
		}), attest.RuleEKCertificate, false},
		{"no issuer", ca.again(t, good, func(f []asn1.RawValue) []asn1.RawValue {
			f[fieldIssuer] = asn1.RawValue{FullBytes: []byte{0x30, 0}}
			return f
		}), attest.RuleEKCertificate, false},
		{"key marked for RSAES-OAEP only", ca.again(t, good, oaep(t)), attest.RuleEKCertificate, false},
		{"basic constraints not critical", noBasic, "", false},
		{"key usage not critical", noUsage, "", false},
		{"subjectAltName not critical", extra(subjectAltName(t, false, full)), "", false},
		{"attributes in one RDN", san(together), "", true},
		{"attribute of another type", san(directoryName(t, organisation, tpmMaker, tpmModel, tpmVersion)), "", false},
		{"a DNS name too", san(dns, full), "", false},
		{"no TPM in subjectAltName", san(dns), attest.RuleEKCertificate, false},
		{"no manufacturer", san(directoryName(t, tpmModel, tpmVersion)), attest.RuleEKCertificate, false},
		{"no model", san(directoryName(t, tpmMaker, tpmVersion)), attest.RuleEKCertificate, false},
		{"no version", san(directoryName(t, tpmMaker, tpmModel)), attest.RuleEKCertificate, false},
		{"two TPMs", san(full, full), attest.RuleEKCertificate, false},
		{"two models", san(directoryName(t, tpmMaker, tpmModel, tpmModel, tpmVersion)), attest.RuleEKCertificate, true},
		{"manufacturer a number", san(directoryName(t, numeric, tpmModel, tpmVersion)), attest.RuleEKCertificate, true},
		{"subjectAltName malformed", extra(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: []byte{0x30, 5, 0xa4, 1}}), attest.RuleEKCertificate, false},
		{"signs certificates", ca.certify(t, public, func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCertSign }), attest.RuleEKCertificate, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			ek, err := verify.CheckEK(row.der, nil, roots(t, string(toPEM(ca.certificate))), time.Now())
			wantRule(t, err, row.want)
			if (ek == nil) != (row.want != "") {
				t.Errorf("EK %v with %v", ek, err)
			}
			if got := goAttestation(row.der); got != row.judge {
				t.Errorf("go-attestation says %v, want %v", got, row.judge)
			}
		})
	}
}

func oneRDN(t *testing.T, attributes ...attribute) []byte {
	t.Helper()
	var set []byte
	for _, a := range attributes {
		der, err := asn1.Marshal(a)
		check(t, err)
		set = append(set, der...)
	}
	der, err := asn1.Marshal([]asn1.RawValue{{Tag: asn1.TagSet, IsCompound: true, Bytes: set}})
	check(t, err)
	return der
}

// oaep marks the RSA key of a certificate as id-RSAES-OAEP, which crypto/x509
// does not know.
func oaep(t *testing.T) func([]asn1.RawValue) []asn1.RawValue {
	return func(f []asn1.RawValue) []asn1.RawValue {
		var key struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}
		_, err := asn1.Unmarshal(f[fieldPublicKey].FullBytes, &key)
		check(t, err)
		key.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
		der, err := asn1.Marshal(key)
		check(t, err)
		f[fieldPublicKey] = asn1.RawValue{FullBytes: der}
		return f
	}
}

// Text of a certificate is bounded and shows nothing that a terminal would obey.
func TestCheckEKDescribesTheTPM(t *testing.T) {
	c, ca := newCast(t), newAuthority(t, elliptic.P256())
	long := string(bytes.Repeat([]byte("é"), 200))
	for _, row := range []struct {
		maker, model, version string
		want                  [3]string
	}{
		{"id:53544D20", "ST33HTPHAHD4", "id:00010102", [3]string{"STM", "ST33HTPHAHD4", "00010102"}},
		{"id:49465800", "SLB 9670 TPM2.0", "id:073F", [3]string{"IFX", "SLB 9670 TPM2.0", "073f"}},
		{"id:00001014", "swtpm", "7.2", [3]string{"id:00001014", "swtpm", "7.2"}},
		{"id:1B5B324A", "m", "v", [3]string{"id:1B5B324A", "m", "v"}},
		{"STM", "a\x1b[2J\nb", "id:xy", [3]string{"STM", "a\ufffd[2J\ufffdb", "id:xy"}},
		{"id:5354", long, long, [3]string{"id:5354", long[:128], long[:128]}},
	} {
		maker, model, version := tpmMaker, tpmModel, tpmVersion
		maker.Value, model.Value, version.Value = row.maker, row.model, row.version
		der := ca.certify(t, c.liar.EK.Public(), func(x *x509.Certificate) {
			x.ExtraExtensions = []pkix.Extension{subjectAltName(t, true, directoryName(t, maker, model, version))}
			x.Subject.CommonName = "board\x07 1"
		})
		ek, err := verify.CheckEK(der, nil, roots(t, string(toPEM(ca.certificate))), time.Now())
		wantRule(t, err, "")
		if got := [3]string{ek.Manufacturer, ek.Model, ek.Firmware}; got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
		if ek.Subject != "CN=board\ufffd 1" {
			t.Errorf("subject %q", ek.Subject)
		}
	}
}
