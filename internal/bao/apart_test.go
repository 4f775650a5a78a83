// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/issuer"
)

// signing is the real server with two hosts enrolled.
type signing struct {
	server   *openBao
	client   *Client
	anchors  []*x509.Certificate
	sessions map[string]*Session
}

var (
	oidSAN       = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCN        = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidEMail     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidSerial    = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidUserID    = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	oidUPN       = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	oidBasic     = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidPermitted = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// asked is a request as an attacker on host A makes it: its subject attributes
// in order, its general names, further extensions.
type asked struct {
	subject    []pkix.AttributeTypeAndValue
	names      []asn1.RawValue
	extensions []pkix.Extension
}

func cn(value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oidCN, Value: value}
}

func attribute(oid asn1.ObjectIdentifier, value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oid, Value: value}
}

// general is one GeneralName (RFC 5280 section 4.2.1.6).
func general(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

func eMail(value string) asn1.RawValue { return general(1, value) }
func dns(value string) asn1.RawValue   { return general(2, value) }
func uri(value string) asn1.RawValue   { return general(6, value) }
func ip(value string) asn1.RawValue {
	return general(7, string(netip.MustParseAddr(value).AsSlice()))
}

// own adds names to an otherwise honest request of host A.
func own(names ...asn1.RawValue) asked {
	return asked{subject: []pkix.AttributeTypeAndValue{cn("web.example")}, names: append([]asn1.RawValue{dns("web.example")}, names...)}
}

// csr encodes and signs a.
func (a asked) csr(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var subject pkix.RDNSequence
	for _, attribute := range a.subject {
		subject = append(subject, pkix.RelativeDistinguishedNameSET{attribute})
	}
	raw, err := asn1.Marshal(subject)
	if err != nil {
		t.Fatal(err)
	}
	extensions := a.extensions
	if len(a.names) > 0 {
		extensions = append(extensions, sanOf(t, a.names...))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: raw, ExtraExtensions: extensions}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func sanOf(t *testing.T, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSAN, Value: value}
}

// outcome is what the server is known to do with a request.
type outcome bool

const (
	refused outcome = false
	signed  outcome = true // but without anything of host B
)

// csrAttacks ask for names of host B in the request itself.
func csrAttacks(t *testing.T) map[string]struct {
	asked asked
	want  outcome
} {
	t.Helper()
	type row = struct {
		asked asked
		want  outcome
	}
	rows := map[string]row{
		"B as common name":          {asked{subject: []pkix.AttributeTypeAndValue{cn("web1.example")}}, refused},
		"B then A as common name":   {asked{subject: []pkix.AttributeTypeAndValue{cn("web1.example"), cn("web.example")}}, signed},
		"A then B as common name":   {asked{subject: []pkix.AttributeTypeAndValue{cn("web.example"), cn("web1.example")}}, refused},
		"B's address as name":       {asked{subject: []pkix.AttributeTypeAndValue{cn("10.10.2.62")}}, refused},
		"list as common name":       {asked{subject: []pkix.AttributeTypeAndValue{cn("web.example,web1.example")}}, refused},
		"B in upper case":           {asked{subject: []pkix.AttributeTypeAndValue{cn("WEB1.EXAMPLE")}}, refused},
		"B with ideographic dot":    {asked{subject: []pkix.AttributeTypeAndValue{cn("web1\u3002example")}}, refused},
		"B in full width":           {asked{subject: []pkix.AttributeTypeAndValue{cn("\uff57\uff45\uff421.example")}}, refused},
		"B with soft hyphen":        {asked{subject: []pkix.AttributeTypeAndValue{cn("we\u00adb1.example")}}, refused},
		"B with final dot":          {asked{subject: []pkix.AttributeTypeAndValue{cn("web1.example.")}}, refused},
		"e-mail as common name":     {asked{subject: []pkix.AttributeTypeAndValue{cn("root@web1.example")}}, refused},
		"URI as common name":        {asked{subject: []pkix.AttributeTypeAndValue{cn("spiffe://example.org/web1")}}, refused},
		"no common name, DNS of B":  {asked{names: []asn1.RawValue{dns("web1.example")}}, refused},
		"e-mail in the subject":     {asked{subject: []pkix.AttributeTypeAndValue{cn("web.example"), attribute(oidEMail, "root@web1.example")}}, signed},
		"serial number of B":        {asked{subject: []pkix.AttributeTypeAndValue{cn("web.example"), attribute(oidSerial, "web1.example")}}, refused},
		"user ID of B":              {asked{subject: []pkix.AttributeTypeAndValue{cn("web.example"), attribute(oidUserID, "web1.example")}}, refused},
		"e-mail at B":               {own(eMail("root@web1.example")), refused},
		"e-mail with two hosts":     {own(eMail("root@web1.example@web.example")), refused},
		"wildcard over B":           {own(dns("*.example")), refused},
		"wildcard over B below A":   {own(dns("*.web.example")), refused},
		"partial wildcard":          {own(dns("web*.example")), refused},
		"wildcard alone":            {own(dns("*")), refused},
		"list as DNS name":          {own(dns("web.example,web1.example")), refused},
		"DNS name with NUL":         {own(dns("web1.example\x00.web.example")), refused},
		"DNS name with space":       {own(dns(" web1.example")), refused},
		"address as DNS name":       {own(dns("10.10.2.62")), refused},
		"localhost of B":            {own(dns("web1.localhost")), refused},
		"IPv4 of B as IPv6":         {own(general(7, string(append(append(make([]byte, 10), 0xff, 0xff), 10, 10, 2, 62)))), refused},
		"network of B":              {own(general(7, "\x0a\x0a\x02\x3e\xff\xff\xff\xff")), refused},
		"web address of B":          {own(uri("https://web1.example/")), refused},
		"URI of A and more":         {own(uri("spiffe://example.org/web/../web1")), refused},
		"UPN of B":                  {own(otherName(t, "root@web1.example")), refused},
		"directory name of B":       {own(directoryName(t, "web1.example")), signed},
		"registered ID":             {own(general(8, "\x2a\x03")), signed},
		"SAN of B, then SAN of A":   {twoSANs(t, dns("web1.example"), dns("web.example")), refused},
		"SAN of A, then SAN of B":   {twoSANs(t, dns("web.example"), dns("web1.example")), refused},
		"a CA":                      {withExtension(oidBasic, []byte{0x30, 3, 1, 1, 0xff}), signed},
		"a CA for B":                {withExtension(oidPermitted, []byte("\x30\x12\xa0\x10\x30\x0e\x82\x0cweb1.example")), signed},
		"B among much that is A's":  {own(dns("localhost"), ip("10.10.2.6"), uri("spiffe://example.org/web"), dns("web1.example")), refused},
		"address among names of A":  {own(dns("localhost"), ip("10.10.2.6"), ip("10.10.2.62")), refused},
		"URI of B beside that of A": {own(uri("spiffe://example.org/web"), uri("spiffe://example.org/web1")), refused},
	}
	for _, name := range hostB.domains {
		if name != "localhost" {
			rows["DNS name "+name] = row{own(dns(name)), refused}
			rows["common name "+name] = row{asked{subject: []pkix.AttributeTypeAndValue{cn(name)}}, refused}
			rows["e-mail at "+name] = row{own(eMail("root@" + name)), refused}
			rows["wildcard below "+name] = row{own(dns("*." + name)), refused}
		}
	}
	for _, address := range []string{"10.10.2.62", "10.10.2.7", "fd00::62", "0.0.0.0", "::"} {
		rows["address "+address] = row{own(ip(address)), refused}
	}
	for _, id := range append(hostB.uris, "spiffe://example.org/web1/x", "spiffe://example.org/", "spiffe://example.org/*") {
		rows["URI "+id] = row{own(uri(id)), refused}
	}
	return rows
}

func otherName(t *testing.T, value string) asn1.RawValue {
	t.Helper()
	text, err := asn1.MarshalWithParams(value, "utf8,explicit,tag:0")
	if err != nil {
		t.Fatal(err)
	}
	oid, err := asn1.Marshal(oidUPN)
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, text...)}
}

func directoryName(t *testing.T, name string) asn1.RawValue {
	t.Helper()
	value, err := asn1.Marshal(pkix.RDNSequence{{cn(name)}})
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: value}
}

func twoSANs(t *testing.T, first, second asn1.RawValue) asked {
	t.Helper()
	a := own()
	a.names = nil
	a.extensions = []pkix.Extension{sanOf(t, first), sanOf(t, second)}
	return a
}

func withExtension(id asn1.ObjectIdentifier, value []byte) asked {
	a := own()
	a.extensions = []pkix.Extension{{Id: id, Critical: true, Value: value}}
	return a
}

// parameterAttacks ask for names of host B beside an honest request.
func parameterAttacks() map[string]map[string]any {
	return map[string]map[string]any{
		"common_name":             {"common_name": "web1.example"},
		"alt_names":               {"alt_names": "web1.example,root@web1.example"},
		"ip_sans":                 {"ip_sans": "10.10.2.62"},
		"uri_sans":                {"uri_sans": "spiffe://example.org/web1"},
		"other_sans":              {"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:root@web1.example"},
		"serial_number":           {"serial_number": "web1.example"},
		"user_ids":                {"user_ids": "web1.example"},
		"exclude_cn_from_sans":    {"exclude_cn_from_sans": true, "alt_names": "web1.example"},
		"use_csr_values":          {"use_csr_values": true, "alt_names": "web1.example"},
		"role":                    {"role": "web1.server", "common_name": "web1.example"},
		"allowed_domains":         {"allowed_domains": "web1.example", "common_name": "web1.example"},
		"issuer_ref":              {"issuer_ref": "default", "common_name": "web1.example"},
		"not_after":               {"not_after": "2099-01-01T00:00:00Z", "common_name": "web1.example"},
		"ext_key_usage":           {"ext_key_usage": "ClientAuth", "common_name": "web1.example"},
		"remove_roots_from_chain": {"remove_roots_from_chain": true, "common_name": "web1.example"},
	}
}

// pathAttacks are other places where a token of host A might have names of B
// signed, or be changed into one that may.
var pathAttacks = []string{
	"pki_int/sign/web1.server", "pki_int/sign/web1.client", "pki_int/sign/web.server1", "pki_int/sign/web.server/",
	"pki_int/sign/WEB.server", "pki_int/sign/web", "pki_int/sign/", "pki_int/sign/*", "pki_int/sign/web.server/../web1.server",
	"pki_int/sign/web.server%2f..%2fweb1.server", "pki_int/sign/web.server%00/../web1.server", "pki_int//sign/web1.server",
	"pki_int/sign-verbatim", "pki_int/sign-verbatim/web.server", "pki_int/issue/web1.server", "pki_int/issue/web.server",
	"pki_int/issuer/default/sign/web1.server", "pki_int/issuer/default/sign/web.server", "pki_int/issuer/default/sign-verbatim",
	"pki_int/roles/web.server", "pki_int/root/sign-intermediate", "pki_int/root/sign-self-issued", "pki_int/intermediate/set-signed",
	"pki_root/sign/web.server", "pki_root/root/sign-intermediate", "pki_int/acme/new-order", "pki_int/cel/sign/web.server",
	"sys/policies/acl/omen-host-web", "auth/token/create", "auth/token/create-orphan", "identity/entity",
}

// testHostsApart proves that host A never gets a name or an address of host B:
// with its own token, and by the role alone (as an administrator asks).
func (s *signing) testHostsApart(t *testing.T) {
	token := s.sessions["web"].Token.header()
	askers := map[string]string{"host": token, "role alone": rootToken}
	for name, row := range csrAttacks(t) {
		for who, token := range askers {
			for _, usage := range []string{"server", "client"} {
				t.Run("request/"+name+"/"+who+"/"+usage, func(t *testing.T) {
					status, data := s.server.raw(t, token, "pki_int/sign/web."+usage, map[string]any{"csr": row.asked.csr(t), "format": "pem"})
					s.checkApart(t, usage, status, data)
					got := outcome(status == http.StatusOK)
					if got != row.want && usage == "server" {
						t.Errorf("signed %t, known to be %t", got, row.want)
					}
				})
			}
		}
	}
	for name, parameters := range parameterAttacks() {
		for who, token := range askers {
			t.Run("parameter/"+name+"/"+who, func(t *testing.T) {
				data := map[string]any{"csr": own().csr(t), "format": "pem"}
				for key, value := range parameters {
					data[key] = value
				}
				status, answer := s.server.raw(t, token, "pki_int/sign/web.server", data)
				s.checkApart(t, "server", status, answer)
				if who == "host" && status != http.StatusForbidden {
					t.Errorf("HTTP %d, the policy must refuse every further parameter", status)
				}
			})
		}
	}
	for _, path := range pathAttacks {
		t.Run("path/"+path, func(t *testing.T) {
			names := asked{subject: []pkix.AttributeTypeAndValue{cn("web1.example")}, names: []asn1.RawValue{dns("web1.example")}}
			status, _ := s.server.raw(t, token, path, map[string]any{"csr": names.csr(t), "common_name": "web1.example", "format": "pem"})
			if status < 300 || status >= 500 {
				t.Errorf("HTTP %d", status)
			}
		})
	}
}

// checkApart looks for anything of host B in a certificate, in its bytes, and
// for more than the usage of its role.
func (s *signing) checkApart(t *testing.T, usage string, status int, data map[string]any) {
	t.Helper()
	if status >= 500 {
		t.Errorf("HTTP %d is no refusal", status)
	}
	if status != http.StatusOK {
		return
	}
	text, _ := data["certificate"].(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no certificate in %v", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	raw := bytes.ToLower(cert.Raw)
	for _, name := range slices.Concat([]string{"web1"}, hostB.domains, hostB.uris) {
		if name != "localhost" && bytes.Contains(raw, []byte(name)) {
			t.Errorf("the certificate contains %q", name)
		}
	}
	if names := strings.Join(cert.DNSNames, " "); strings.Contains(names, "*") {
		t.Errorf("wildcard in %s", names)
	}
	for _, address := range cert.IPAddresses {
		for _, prefix := range hostB.ips {
			network := netip.MustParsePrefix(prefix)
			got, _ := netip.AddrFromSlice(address)
			if network.Contains(got.Unmap()) && !got.IsLoopback() {
				t.Errorf("the certificate is for %s", got)
			}
		}
	}
	want := map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth}[usage]
	if len(cert.UnknownExtKeyUsage) != 0 || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{want}) {
		t.Errorf("extended key usage %v %v", cert.ExtKeyUsage, cert.UnknownExtKeyUsage)
	}
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || time.Until(cert.NotAfter) > 24*time.Hour {
		t.Errorf("CA %t, key usage %b, until %s", cert.IsCA, cert.KeyUsage, cert.NotAfter)
	}
}

// testOwnEMail holds what no setting of the role refuses: an e-mail address at
// a name of the host itself. It names nobody else, and the judgement of the
// reply refuses it.
func (s *signing) testOwnEMail(t *testing.T) {
	for _, address := range []string{"root@web.example", "root@localhost"} {
		request := issuer.Request{Name: "test", CommonName: "web.example", Usage: issuer.ServerAuth, TTL: time.Hour}
		status, data := s.server.raw(t, s.sessions["web"].Token.header(), "pki_int/sign/web.server",
			map[string]any{"csr": own(eMail(address)).csr(t), "format": "pem", "ttl": "1h"})
		if status != http.StatusOK {
			t.Errorf("%s: HTTP %d: the server refuses it now; say so in pki-roles.json", address, status)
			continue
		}
		reply := issuer.Reply{Certificate: data["certificate"].(string), IssuingCA: data["issuing_ca"].(string)}
		block, _ := pem.Decode([]byte(reply.Certificate))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		_, err = issuer.Judge(reply, request, cert.RawSubjectPublicKeyInfo, s.anchors, time.Now())
		var judgement *issuer.JudgementError
		if !errors.As(err, &judgement) || judgement.Rule != issuer.RuleName || !strings.Contains(judgement.Detail, "e-mail") {
			t.Errorf("%s: judged %v", address, err)
		}
	}
}
