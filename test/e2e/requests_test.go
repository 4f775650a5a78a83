// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"strings"
	"testing"
)

// A csrRequest is a signing request with something in it that is not the
// attacker's.
type csrRequest struct{ name, pem string }

// oids of RFC 5280.
var (
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganization     = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidUPN              = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
)

// requests are all ways to put another's name or address into a request.
func (a *attack) requests(t *testing.T) []csrRequest {
	t.Helper()
	var all []csrRequest
	add := func(name string, template x509.CertificateRequest) {
		all = append(all, csrRequest{name, signed(t, template)})
	}
	own, name, ip := a.attacker.dns[0], a.victim.dns[0], net.ParseIP(a.victim.ip)
	subject := pkix.Name{CommonName: own}
	for _, dns := range a.dnsNames() {
		add("CN "+dns, x509.CertificateRequest{Subject: pkix.Name{CommonName: dns}})
		add("DNS "+dns, x509.CertificateRequest{Subject: subject, DNSNames: []string{own, dns}})
		add("CN and DNS "+dns, x509.CertificateRequest{Subject: pkix.Name{CommonName: dns}, DNSNames: []string{dns}})
	}
	for _, mail := range []string{"root@" + name, name} {
		add("e-mail "+mail, x509.CertificateRequest{Subject: subject, EmailAddresses: []string{mail}})
		add("CN e-mail "+mail, x509.CertificateRequest{Subject: pkix.Name{CommonName: mail}, EmailAddresses: []string{mail}})
	}
	for _, text := range []string{"spiffe://funlab.casa/" + a.victim.host.Name, "https://" + name, "https://" + a.victim.ip} {
		add("URI "+text, x509.CertificateRequest{Subject: subject, URIs: []*url.URL{check(url.Parse(text))(t)}})
	}
	add("IP", x509.CertificateRequest{Subject: subject, IPAddresses: []net.IP{ip}})
	add("IP as CN", x509.CertificateRequest{Subject: pkix.Name{CommonName: a.victim.ip}, IPAddresses: []net.IP{ip}})
	add("unspecified IP", x509.CertificateRequest{Subject: subject, IPAddresses: ips("0.0.0.0", "::")})
	return append(all, a.rawRequests(t)...)
}

// dnsNames are the victim's DNS names, and what covers or resembles them.
func (a *attack) dnsNames() []string {
	own, names := a.attacker.dns[0], append([]string(nil), a.victim.dns...)
	for _, name := range a.victim.dns {
		names = append(names, strings.ToUpper(name), name+".", "."+name, "*."+name, "a."+name, name+"."+own, own+"\x00."+name, name+"\x00."+own, " "+name)
	}
	return append(names, "*.keylime.funlab.casa", "*.funlab.casa", "*", "", "keylime.funlab.casa", "v*.keylime.funlab.casa",
		"x."+own, "*."+own, a.victim.ip, "*.localhost", a.victim.host.Name, a.victim.host.FQDN())
}

// rawRequests are those that x509.CertificateRequest cannot say.
func (a *attack) rawRequests(t *testing.T) []csrRequest {
	t.Helper()
	own, name := a.attacker.dns[0], a.victim.dns[0]
	subject := pkix.Name{CommonName: own}
	var all []csrRequest
	add := func(what string, template x509.CertificateRequest) {
		all = append(all, csrRequest{what, signed(t, template)})
	}
	san := func(values ...asn1.RawValue) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: subject, ExtraExtensions: []pkix.Extension{{Id: oidSAN, Value: check(asn1.Marshal(values))(t)}}}
	}
	utf8 := check(asn1.MarshalWithParams(name, "utf8"))(t)
	other := check(asn1.Marshal(struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}{oidUPN, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: utf8}}))(t)
	var sequence asn1.RawValue
	if _, err := asn1.Unmarshal(other, &sequence); err != nil {
		t.Fatal(err)
	}
	directory := check(asn1.Marshal(pkix.Name{CommonName: name}.ToRDNSequence()))(t)
	add("otherName", san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: sequence.Bytes}))
	add("directoryName", san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: directory}))
	add("registeredID", san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 3}}))
	add("IP mapped into IPv6", san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: net.ParseIP(a.victim.ip).To16()}))
	add("names of the victim after its own", san(
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(own)},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)},
	))
	add("two CNs", x509.CertificateRequest{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: oidCommonName, Value: name}, {Type: oidCommonName, Value: own},
	}}})
	add("organisation", x509.CertificateRequest{Subject: pkix.Name{CommonName: own, ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: oidOrganization, Value: name},
	}}})
	add("serial number and unit", x509.CertificateRequest{Subject: pkix.Name{CommonName: own, SerialNumber: name, OrganizationalUnit: []string{name}}})
	add("a CA", x509.CertificateRequest{Subject: subject, ExtraExtensions: []pkix.Extension{
		{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}},
	}})
	add("both usages", x509.CertificateRequest{Subject: subject, ExtraExtensions: []pkix.Extension{
		{Id: oidExtKeyUsage, Value: check(asn1.Marshal([]asn1.ObjectIdentifier{oidServerAuth, oidClientAuth}))(t)},
	}})
	return all
}

// Tags of GeneralName, RFC 5280 section 4.2.1.6.
const (
	nameDNS = 2
	nameIP  = 7
)

// nameKinds are the tags of a certificate's alternative names.
func nameKinds(t *testing.T, c *x509.Certificate) (kinds []int) {
	t.Helper()
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSAN) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			kinds = append(kinds, name.Tag)
		}
	}
	return kinds
}
