// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var (
	oidCommonName     = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// organisational are the subject attributes that a PKI role may add by itself
// and that name no host: C, L, ST, street, O, OU, postalCode.
var organisational = map[string]bool{
	"2.5.4.6": true, "2.5.4.7": true, "2.5.4.8": true, "2.5.4.9": true,
	"2.5.4.10": true, "2.5.4.11": true, "2.5.4.17": true,
}

// judgeNames checks that the certificate bears exactly the names asked for.
func judgeNames(leaf *x509.Certificate, r Request) error {
	if err := judgeSubject(leaf, r.CommonName); err != nil {
		return err
	}
	got, err := subjectAltNames(leaf)
	if err != nil {
		return err
	}
	want := r.generalNames()
	for i, name := range got {
		if !slices.Contains(want, name) {
			return broken(RuleName, "%s in the certificate was not asked for", name)
		}
		if slices.Contains(got[:i], name) {
			return broken(RuleName, "%s is in the certificate twice", name)
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			return broken(RuleName, "%s was asked for and is not in the certificate", name)
		}
	}
	return nil
}

// judgeSubject checks the subject: one common name, as asked, and nothing else
// that could be taken for the name of somebody.
func judgeSubject(leaf *x509.Certificate, commonName string) error {
	count := 0
	for _, attribute := range leaf.Subject.Names {
		if attribute.Type.Equal(oidCommonName) {
			count++
			continue
		}
		if !organisational[attribute.Type.String()] {
			return broken(RuleName, "the subject has the attribute %s, which was not asked for", attribute.Type)
		}
	}
	if count != 1 || leaf.Subject.CommonName != commonName {
		return broken(RuleName, "the subject has %d common names, the last is %q; want one, %q",
			count, leaf.Subject.CommonName, commonName)
	}
	return nil
}

// generalName is one entry of a subjectAltName: its kind and its bytes.
type generalName struct {
	tag   int // context-specific tag of GeneralName, RFC 5280 section 4.2.1.6
	value string
}

const (
	tagDNS = 2
	tagURI = 6
	tagIP  = 7
)

// String is for messages.
func (n generalName) String() string {
	switch n.tag {
	case tagDNS:
		return fmt.Sprintf("DNS name %q", n.value)
	case tagURI:
		return fmt.Sprintf("URI %q", n.value)
	case tagIP:
		if addr, ok := netip.AddrFromSlice([]byte(n.value)); ok {
			return "address " + addr.String()
		}
		return fmt.Sprintf("address %x", n.value)
	}
	kinds := map[int]string{0: "other name", 1: "e-mail address", 3: "X.400 address", 4: "directory name", 5: "EDI party name", 8: "registered ID"}
	return fmt.Sprintf("%s %q", kinds[n.tag], n.value)
}

// generalNames is the exact content that the subjectAltName must have.
func (r Request) generalNames() []generalName {
	var names []generalName
	for _, dns := range r.dnsNames() {
		names = append(names, generalName{tagDNS, dns})
	}
	for _, addr := range r.IP {
		names = append(names, generalName{tagIP, string(addr.AsSlice())})
	}
	if r.URI != "" {
		names = append(names, generalName{tagURI, r.URI})
	}
	return names
}

// subjectAltNames reads the extension from its bytes: crypto/x509 skips the
// kinds of names that it does not know, and exactly those must not get by.
func subjectAltNames(leaf *x509.Certificate) ([]generalName, error) {
	var names []generalName
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		var entries []asn1.RawValue
		rest, err := asn1.Unmarshal(extension.Value, &entries)
		if err != nil {
			return nil, brokenBy(RuleName, "subjectAltName", err)
		}
		if len(rest) != 0 {
			return nil, broken(RuleName, "subjectAltName: trailing bytes")
		}
		for _, entry := range entries {
			compound := entry.Tag == 0 || entry.Tag == 3 || entry.Tag == 4 || entry.Tag == 5
			if entry.Class != asn1.ClassContextSpecific || entry.IsCompound != compound {
				return nil, broken(RuleName, "subjectAltName: not a general name in DER")
			}
			names = append(names, generalName{entry.Tag, string(entry.Bytes)})
		}
	}
	return names, nil
}

// judgeSVID checks chain, certificate first and root last, by the rules for
// X509-SVIDs with the root as the whole bundle of its trust domain.
func judgeSVID(chain []*x509.Certificate, uri string, now time.Time) error {
	if uri == "" {
		return nil
	}
	want, err := spiffeid.FromString(uri)
	if err != nil {
		return brokenBy(RuleSPIFFE, "uri", err)
	}
	root := chain[len(chain)-1]
	bundle := x509bundle.FromX509Authorities(want.TrustDomain(), []*x509.Certificate{root})
	got, _, err := x509svid.Verify(chain[:len(chain)-1], bundle, x509svid.WithTime(now))
	if err != nil {
		return brokenBy(RuleSPIFFE, "X509-SVID", err)
	}
	if got != want {
		return broken(RuleSPIFFE, "SPIFFE ID %q, asked for %q", got, want)
	}
	return nil
}
