// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"strings"
	"testing"
)

// FuzzJudge hands Judge texts that nobody signed. It must not panic, and what
// it accepts must be what was asked for, by the eyes of crypto/x509.
func FuzzJudge(f *testing.F) {
	w := newWorld(f)
	good := w.reply(pemText(w.issuer.issue(f, w.leaf, w.public)), w)
	f.Add(good.Certificate, good.IssuingCA, strings.Join(good.CAChain, "|"))
	f.Add(good.Certificate, "", good.IssuingCA)
	f.Add(good.IssuingCA, good.Certificate, good.Certificate)
	f.Add("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----", "", "")
	f.Add("", "", "|||||||||||")
	f.Fuzz(func(t *testing.T, certificate, issuing, chain string) {
		reply := Reply{Certificate: certificate, IssuingCA: issuing, CAChain: strings.Split(chain, "|")}
		got, err := Judge(reply, w.request, w.key.SPKI(), w.anchors, now)
		if (got == nil) == (err == nil) {
			t.Fatalf("result %v with error %v", got, err)
		}
		if got != nil {
			checkAccepted(t, w, got)
		}
	})
}

// FuzzJudgeNames has a trusted CA sign any bytes as subjectAltName.
func FuzzJudgeNames(f *testing.F) {
	w := newWorld(f)
	good, err := asn1.Marshal(goodSAN(w.request))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(slices.Clone(good), 0))
	f.Add([]byte{0x30, 0})
	f.Add([]byte{0x30, 0x0c, 0x82, 0x0a, 'l', 'o', 'c', 'a', 'l', 'h', 'o', 's', 't', 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		leaf := *w.leaf
		leaf.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: value}}
		cert, err := tryIssue(w.issuer, &leaf, w.public)
		if err != nil {
			return // crypto/x509 does not read it at all
		}
		got, err := Judge(w.reply(pemText(cert), w), w.request, w.key.SPKI(), w.anchors, now)
		if err == nil {
			checkAccepted(t, w, got)
		}
	})
}

func checkAccepted(t *testing.T, w *world, got *Issued) {
	t.Helper()
	leaf := got.Leaf
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, w.key.SPKI()) {
		t.Error("another key")
	}
	names := slices.Sorted(slices.Values(leaf.DNSNames))
	if !slices.Equal(names, slices.Sorted(slices.Values(w.leaf.DNSNames))) {
		t.Errorf("DNS names %q", names)
	}
	same := func(a, b net.IP) int { return strings.Compare(a.String(), b.String()) }
	if !slices.EqualFunc(slices.SortedFunc(slices.Values(leaf.IPAddresses), same),
		slices.SortedFunc(slices.Values(w.leaf.IPAddresses), same), net.IP.Equal) {
		t.Errorf("addresses %v", leaf.IPAddresses)
	}
	if len(leaf.EmailAddresses)+len(leaf.URIs) != 0 {
		t.Errorf("e-mail %v, URIs %v", leaf.EmailAddresses, leaf.URIs)
	}
}
