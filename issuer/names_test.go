// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"testing"
)

func TestJudgeRefusesNames(t *testing.T) {
	oid := func(arcs ...int) asn1.ObjectIdentifier { return arcs }
	attribute := func(id asn1.ObjectIdentifier, value string) func(*testing.T, *world) {
		return template(func(c *x509.Certificate) {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: id, Value: value})
		})
	}
	dns := func(names ...string) func(*testing.T, *world) {
		return template(func(c *x509.Certificate) { c.DNSNames = names })
	}
	const cn = "verifier.keylime.example"
	expectRefusals(t, []bend{
		{"another common name", RuleName, template(func(c *x509.Certificate) { c.Subject.CommonName = "registrar.keylime.example" })},
		{"no common name", RuleName, template(func(c *x509.Certificate) { c.Subject.CommonName = "" })},
		{"two common names", RuleName, func(t *testing.T, w *world) {
			attribute(oidCommonName, cn)(t, w)
			attribute(oidCommonName, cn)(t, w)
		}},
		{"e-mail in the subject", RuleName, attribute(oid(1, 2, 840, 113549, 1, 9, 1), "root@keylime.example")},
		{"serial number in the subject", RuleName, attribute(oid(2, 5, 4, 5), "1")},
		{"user ID in the subject", RuleName, attribute(oid(0, 9, 2342, 19200300, 100, 1, 1), "root")},
		{"one DNS name more", RuleName, dns(cn, "localhost", "agent.keylime.example")},
		{"one DNS name less", RuleName, dns(cn)},
		{"common name not among them", RuleName, dns("localhost")},
		{"one in upper case", RuleName, dns("VERIFIER.keylime.example", "localhost")},
		{"with a final dot", RuleName, dns(cn+".", "localhost")},
		{"a prefix of it", RuleName, dns("verifier.keylime.exampl", "localhost")},
		{"longer than it", RuleName, dns(cn+".org", "localhost")},
		{"wildcard", RuleName, dns(cn, "localhost", "*.keylime.example")},
		{"one twice", RuleName, dns(cn, cn, "localhost")},
		{"one address more", RuleName, template(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 10, 2, 70)) })},
		{"one address less", RuleName, template(func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] })},
		{"e-mail", RuleName, template(func(c *x509.Certificate) { c.EmailAddresses = []string{"root@" + cn} })},
	})
}

// san makes a row's change that adds entries to an otherwise good extension.
func san(t *testing.T, entries ...asn1.RawValue) func(*testing.T, *world) {
	t.Helper()
	return func(t *testing.T, w *world) {
		t.Helper()
		value, err := asn1.Marshal(append(goodSAN(w.request), entries...))
		if err != nil {
			t.Fatal(err)
		}
		w.leaf.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: value}}
	}
}

func goodSAN(r Request) []asn1.RawValue {
	var entries []asn1.RawValue
	for _, name := range r.generalNames() {
		entries = append(entries, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: name.tag, Bytes: []byte(name.value)})
	}
	return entries
}

// TestJudgeRefusesRawNames has what crypto/x509 does not show.
func TestJudgeRefusesRawNames(t *testing.T) {
	entry := func(tag int, compound bool, value ...byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: value}
	}
	mapped := append(append(make([]byte, 10), 0xff, 0xff), 10, 10, 2, 62)
	expectRefusals(t, []bend{
		{"other name", RuleName, san(t, entry(0, true, 6, 1, 42, 0xa0, 3, 12, 1, 'x'))},
		{"X.400 address", RuleName, san(t, entry(3, true, 0x30, 0))},
		{"directory name", RuleName, san(t, entry(4, true, 0x30, 0))},
		{"EDI party name", RuleName, san(t, entry(5, true, 0xa1, 3, 12, 1, 'x'))},
		{"registered ID", RuleName, san(t, entry(8, false, 42))},
		{"unknown kind", RuleName, san(t, entry(9, false, 42))},
		{"not context-specific", RuleName, san(t, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("x")})},
		{"constructed DNS name", RuleName, san(t, entry(tagDNS, true, 22, 1, 'x'))},
		{"IPv4 as IPv6", RuleName, san(t, entry(tagIP, false, mapped...))},
		{"DNS name with NUL", RuleName, san(t, entry(tagDNS, false, append([]byte("localhost\x00"), '.', 'x')...))},
		{"no extension", RuleName, template(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil })},
	})
	w := newWorld(t)
	san(t)(t, w)
	if _, err := w.judge(t); err != nil {
		t.Errorf("the same extension with nothing added: %v", err)
	}
}
