// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
)

func roots(authorities ...*authority) []*x509.Certificate {
	var list []*x509.Certificate
	for _, a := range authorities {
		list = append(list, a.cert)
	}
	return list
}

// small makes the world one of a CA for clients alone: a root that signs leaves
// itself. The reply brings the root, as OpenBao's does.
func (w *world) small(tb testing.TB) *authority {
	tb.Helper()
	clients := newAuthority(tb, caTemplate("Clients"), nil)
	w.request.Usage, w.request.DNS, w.request.IP = ClientAuth, nil, nil
	w.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	w.leaf.DNSNames, w.leaf.IPAddresses = []string{w.request.CommonName}, nil
	w.issuer, w.anchors = clients, roots(clients)
	w.reply = func(leaf string, _ *world) Reply {
		return Reply{Certificate: leaf, IssuingCA: pemText(clients.cert), CAChain: []string{pemText(clients.cert)}}
	}
	return clients
}

// A CA without intermediate: the certificate file is the leaf, the CA file the root.
func TestJudgeAcceptsClientOfSmallCA(t *testing.T) {
	w := newWorld(t)
	clients := w.small(t)
	got, err := w.judge(t)
	if err != nil {
		t.Fatal(err)
	}
	checkIssued(t, w, got)
	if !bytes.Equal(got.ChainPEM, encodeCertificate(got.Leaf)) || !bytes.Equal(got.CAPEM, encodeCertificate(clients.cert)) {
		t.Errorf("chain:\n%sCA:\n%s", got.ChainPEM, got.CAPEM)
	}
}

// While a CA is replaced, two roots are pinned: chains to either are accepted, and
// the CA file is the same for both but for the intermediate.
func TestJudgeAcceptsOldAndNewRoot(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, w *world, next *authority){
		"leaf of the old": func(*testing.T, *world, *authority) {},
		"leaf of the new": func(t *testing.T, w *world, next *authority) {
			w.inter = newAuthority(t, caTemplate("Intermediate 2"), next)
			w.issuer, w.root = w.inter, next
		},
		"new root signed by the old": func(t *testing.T, w *world, next *authority) {
			w.inter = newAuthority(t, caTemplate("Intermediate 2"), next)
			w.issuer = w.inter
			crossed := w.root.issue(t, caTemplate("Next"), next.key.Public())
			w.reply = func(leaf string, w *world) Reply {
				return Reply{Certificate: leaf, CAChain: []string{pemText(w.inter.cert), pemText(crossed)}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			next := newAuthority(t, caTemplate("Next"), nil)
			w.anchors = roots(w.root, next)
			change(t, w, next)
			got, err := w.judge(t)
			if err != nil {
				t.Fatal(err)
			}
			checkIssued(t, w, got)
			if want := EncodeCertificates(append(roots(w.inter), w.anchors...)); !bytes.Equal(got.CAPEM, want) {
				t.Errorf("CA file:\n%s", got.CAPEM)
			}
		})
	}
}

func TestJudgeRefusesOtherAnchors(t *testing.T) {
	expectRefusals(t, []bend{
		{"client of the small CA for a server", RuleUsage, func(t *testing.T, w *world) {
			request := w.request
			w.small(t)
			w.request = request
		}},
		{"server of the small CA, its root sent", RuleAnchor, func(t *testing.T, w *world) {
			request, leaf, pinned := w.request, *w.leaf, w.anchors
			w.small(t)
			w.request, w.leaf, w.anchors = request, &leaf, pinned
		}},
		{"server of the small CA", RuleChain, func(t *testing.T, w *world) {
			w.issuer = newAuthority(t, caTemplate("Clients"), nil)
			w.reply = func(leaf string, _ *world) Reply { return Reply{Certificate: leaf} }
		}},
		{"client of the servers' CA", RuleChain, func(t *testing.T, w *world) {
			inter := w.inter
			w.small(t)
			w.issuer = inter
			w.reply = func(leaf string, _ *world) Reply { return Reply{Certificate: leaf, IssuingCA: pemText(inter.cert)} }
		}},
		{"a root that is not pinned any more", RuleChain, func(t *testing.T, w *world) {
			w.anchors = roots(newAuthority(t, caTemplate("Next"), nil))
			replied(func(r *Reply, _ *world) { r.CAChain = r.CAChain[:1] })(t, w)
		}},
		{"neither of two", RuleChain, func(t *testing.T, w *world) {
			w.anchors = roots(newAuthority(t, caTemplate("Next"), nil), newAuthority(t, caTemplate("Root"), nil))
			replied(func(r *Reply, _ *world) { r.CAChain = r.CAChain[:1] })(t, w)
		}},
	})
}

func TestParseAnchorsAndBundle(t *testing.T) {
	var five []*authority
	for range 5 {
		five = append(five, newAuthority(t, caTemplate("Root"), nil))
	}
	root := five[0]
	inter := newAuthority(t, caTemplate("Intermediate"), root)
	leaf := newAuthority(t, &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "x"}}, nil)
	text := func(list ...*authority) []byte { return EncodeCertificates(roots(list...)) }
	with := func(text []byte, more string) []byte { return append(text, more...) }
	for name, row := range map[string]struct {
		text           []byte
		roots, between int  // in a bundle
		anchor         bool // good as an anchor too
	}{
		"one root":              {text: text(root), roots: 1, anchor: true},
		"four roots":            {text: text(five[:4]...), roots: 4, anchor: true},
		"no final newline":      {text: bytes.TrimSpace(text(root, five[1])), roots: 2, anchor: true},
		"white space around":    {text: with([]byte("\r\n"), string(text(root, five[1]))+" \n\n"), roots: 2, anchor: true},
		"intermediate and root": {text: text(inter, root), roots: 1, between: 1},
		"five roots":            {text: text(five...)},
		"empty":                 {},
		"intermediate alone":    {text: text(inter)},
		"no CA":                 {text: text(root, leaf)},
		"comment":               {text: with([]byte("# root\n"), string(text(root)))},
		"comment between":       {text: with(text(root), "# next\n"+string(text(five[1])))},
		"key behind":            {text: with(text(root), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
		"cut short":             {text: text(root, five[1])[:len(text(root))+100]},
	} {
		anchors, err := ParseAnchors(row.text)
		if (err == nil) != row.anchor || row.anchor && !bytes.Equal(EncodeCertificates(anchors), EncodeCertificates(anchors[:row.roots])) {
			t.Errorf("%s: %d anchors, %v", name, len(anchors), err)
		}
		got, between, err := ParseBundle(row.text)
		if (err == nil) != (row.roots > 0) || len(got) != row.roots || len(between) != row.between {
			t.Errorf("%s: bundle of %d roots and %d intermediates, %v", name, len(got), len(between), err)
		}
	}
	_, err := ParseAnchors(text(root, five[1], root))
	var judgement *JudgementError
	if !errors.As(err, &judgement) || judgement.Rule != RuleAnchor || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one root twice: %v", err)
	}
}
