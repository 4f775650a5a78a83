// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestJudgeAccepts has the shapes that an honest server answers in.
func TestJudgeAccepts(t *testing.T) {
	rows := map[string]func(t *testing.T, w *world){
		"as asked": func(*testing.T, *world) {},
		"client": func(_ *testing.T, w *world) {
			w.request.Usage = ClientAuth
			w.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		},
		"SPIFFE ID": func(t *testing.T, w *world) { w.withURI(t, "spiffe://example.org/keylime/verifier") },
		"root not sent": func(_ *testing.T, w *world) {
			w.reply = func(leaf string, w *world) Reply {
				return Reply{Certificate: leaf, CAChain: []string{pemText(w.inter.cert)}}
			}
		},
		"issuing_ca alone": func(_ *testing.T, w *world) {
			w.reply = func(leaf string, w *world) Reply { return Reply{Certificate: leaf, IssuingCA: pemText(w.inter.cert)} }
		},
		"final newlines": func(_ *testing.T, w *world) {
			w.reply = func(leaf string, w *world) Reply {
				return Reply{Certificate: leaf + "\n", IssuingCA: pemText(w.inter.cert) + "\n"}
			}
		},
		"organisation added by the role": func(_ *testing.T, w *world) {
			w.leaf.Subject.Organization = []string{"Example"}
			w.leaf.Subject.Country = []string{"DE"}
		},
		"the slack of the lifetime": func(_ *testing.T, w *world) { w.leaf.NotBefore = now.Add(-lifetimeSlack) },
		"shorter than asked":        func(_ *testing.T, w *world) { w.leaf.NotAfter = now.Add(time.Hour) },
		"issued by the root":        func(_ *testing.T, w *world) { w.issuer = w.root },
	}
	for name, change := range rows {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(t, w)
			got, err := w.judge(t)
			if err != nil {
				t.Fatal(err)
			}
			checkIssued(t, w, got)
		})
	}
}

// checkIssued uses the accepted files as a service would.
func checkIssued(t *testing.T, w *world, got *Issued) {
	t.Helper()
	key, err := w.key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(got.ChainPEM, key.Reveal())
	if err != nil {
		t.Fatalf("load pair: %v", err)
	}
	for _, file := range [][]byte{got.ChainPEM, got.CAPEM} {
		if !bytes.HasSuffix(file, []byte("-----END CERTIFICATE-----\n")) || bytes.Contains(file, []byte("----------")) {
			t.Errorf("blocks do not end in a newline each:\n%s", file)
		}
	}
	cas := certificates(t, got.CAPEM)
	below := len(cas) - len(w.anchors)
	if roots := cas[below:]; !slices.EqualFunc(roots, w.anchors, (*x509.Certificate).Equal) {
		t.Errorf("CA bundle ends in %q, not in every root", roots[0].Subject)
	}
	if want := below + 1; len(pair.Certificate) != want {
		t.Errorf("chain of %d certificates beside %d CAs", len(pair.Certificate), len(cas))
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(got.CAPEM)
	usage := []x509.ExtKeyUsage{w.request.Usage.extKeyUsage()}
	if _, err := got.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: usage}); err != nil {
		t.Errorf("verify under the bundle: %v", err)
	}
	if !got.NotAfter.Equal(w.leaf.NotAfter) {
		t.Errorf("NotAfter %s, want %s", got.NotAfter, w.leaf.NotAfter)
	}
}

func certificates(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

// A CA that ends before the certificate ends it.
func TestNotAfterIsTheFirstEnd(t *testing.T) {
	w := newWorld(t)
	end := now.Add(time.Hour)
	w.reissue(t, func(c *x509.Certificate) { c.NotAfter = end })
	got, err := w.judge(t)
	if err != nil {
		t.Fatal(err)
	}
	if !got.NotAfter.Equal(end) || !got.RenewAt().Before(end) {
		t.Errorf("NotAfter %s, RenewAt %s; the intermediate ends at %s", got.NotAfter, got.RenewAt(), end)
	}
}

// bend changes one thing of a good world; the rule is the one it must break.
type bend struct {
	name   string
	rule   Rule
	change func(t *testing.T, w *world)
}

func expectRefusals(t *testing.T, rows []bend) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			row.change(t, w)
			issued, err := w.judge(t)
			var judgement *JudgementError
			if !errors.As(err, &judgement) || judgement.Rule != row.rule {
				t.Fatalf("error %v, want rule %s", err, row.rule)
			}
			if issued != nil {
				t.Error("a refused reply came with a result")
			}
		})
	}
}

// replied makes a row's change of a change to the finished reply.
func replied(change func(r *Reply, w *world)) func(*testing.T, *world) {
	return func(_ *testing.T, w *world) {
		good := w.reply
		w.reply = func(leaf string, w *world) Reply {
			r := good(leaf, w)
			change(&r, w)
			return r
		}
	}
}

// template makes a row's change of a change to the certificate to be signed.
func template(change func(c *x509.Certificate)) func(*testing.T, *world) {
	return func(_ *testing.T, w *world) { change(w.leaf) }
}

func TestJudgeRefusesForm(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"
	expectRefusals(t, []bend{
		{"long certificate", RuleSize, replied(func(r *Reply, _ *world) { r.Certificate += strings.Repeat("\n", 16<<10) })},
		{"long CA", RuleSize, replied(func(r *Reply, _ *world) { r.CAChain[0] += strings.Repeat("\n", 16<<10) })},
		{"long chain", RuleSize, replied(func(r *Reply, w *world) {
			for range 9 {
				r.CAChain = append(r.CAChain, pemText(w.inter.cert))
			}
		})},
		{"empty", RuleSyntax, replied(func(r *Reply, _ *world) { r.Certificate = "" })},
		{"empty CA", RuleSyntax, replied(func(r *Reply, _ *world) { r.CAChain[1] = "" })},
		{"two certificates", RuleSyntax, replied(func(r *Reply, w *world) { r.Certificate += "\n" + pemText(w.inter.cert) })},
		{"two CAs in one", RuleSyntax, replied(func(r *Reply, w *world) { r.IssuingCA += "\n" + pemText(w.root.cert) })},
		{"certificate and key", RuleSyntax, replied(func(r *Reply, _ *world) { r.Certificate += "\n" + key })},
		{"key", RuleSyntax, replied(func(r *Reply, _ *world) { r.Certificate = key })},
		{"text before", RuleSyntax, replied(func(r *Reply, _ *world) { r.Certificate = "x\n" + r.Certificate })},
		{"text after", RuleSyntax, replied(func(r *Reply, _ *world) { r.Certificate += "\nx" })},
		{"headers", RuleSyntax, replied(func(r *Reply, _ *world) {
			r.Certificate = strings.Replace(r.Certificate, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1)
		})},
		{"unreadable block before", RuleSyntax, replied(func(r *Reply, _ *world) {
			r.Certificate = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n" + r.Certificate
		})},
		{"not a certificate", RuleSyntax, replied(func(r *Reply, _ *world) {
			r.Certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"
		})},
		{"another key", RuleKey, func(t *testing.T, w *world) { w.public = newTestKey(t).Public() }},
	})
}

func TestJudgeRefusesDates(t *testing.T) {
	expectRefusals(t, []bend{
		{"starts in three minutes", RuleValidity, template(func(c *x509.Certificate) { c.NotBefore = now.Add(3 * time.Minute) })},
		{"starts in two days", RuleValidity, template(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(48*time.Hour), now.Add(72*time.Hour)
		})},
		{"over", RuleValidity, template(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) })},
		{"half a minute left", RuleValidity, template(func(c *x509.Certificate) { c.NotAfter = now.Add(30 * time.Second) })},
		{"longer than asked", RuleValidity, template(func(c *x509.Certificate) { c.NotAfter = now.Add(24*time.Hour + 5*time.Minute) })},
		{"backdated", RuleValidity, template(func(c *x509.Certificate) { c.NotBefore = now.Add(-6 * time.Minute) })},
	})
}

func TestJudgeRefusesChain(t *testing.T) {
	expectRefusals(t, []bend{
		{"nothing pinned", RuleAnchor, func(_ *testing.T, w *world) { w.anchors = nil }},
		{"intermediate pinned", RuleAnchor, func(_ *testing.T, w *world) { w.anchors = []*x509.Certificate{w.inter.cert} }},
		{"another root sent", RuleAnchor, replied(func(r *Reply, _ *world) {
			r.CAChain = append(r.CAChain, pemText(newAuthority(t, caTemplate("Evil"), nil).cert))
		})},
		{"root sent with other dates", RuleAnchor, replied(func(r *Reply, w *world) {
			again := caTemplate("Root")
			again.NotAfter = now.AddDate(9, 0, 0)
			self := &authority{cert: again, key: w.root.key}
			r.CAChain[1] = pemText(self.issue(t, again, w.root.key.Public()))
		})},
		{"expired root", RuleIssuerExpired, func(t *testing.T, w *world) {
			old := caTemplate("Root")
			old.NotAfter = now.Add(-time.Hour)
			w.root = newAuthority(t, old, nil)
			w.anchors = []*x509.Certificate{w.root.cert}
			w.reissue(t, func(*x509.Certificate) {})
		}},
		{"expired intermediate", RuleIssuerExpired, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
		}},
		{"intermediate of tomorrow", RuleIssuerExpired, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.NotBefore = now.Add(24 * time.Hour) })
		}},
		{"intermediate with half a minute left", RuleIssuerExpired, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.NotAfter = now.Add(30 * time.Second) })
		}},
		{"another root pinned, same name", RuleChain, func(t *testing.T, w *world) {
			w.anchors = []*x509.Certificate{newAuthority(t, caTemplate("Root"), nil).cert}
			replied(func(r *Reply, _ *world) { r.CAChain = r.CAChain[:1] })(t, w)
		}},
		{"no intermediate", RuleChain, replied(func(r *Reply, _ *world) { r.IssuingCA, r.CAChain = "", nil })},
		{"issued by a CA of the same name", RuleChain, func(t *testing.T, w *world) {
			w.issuer = newAuthority(t, caTemplate("Intermediate"), newAuthority(t, caTemplate("Root"), nil))
		}},
		{"signature bent", RuleChain, replied(func(r *Reply, _ *world) {
			block, _ := pem.Decode([]byte(r.Certificate))
			block.Bytes[len(block.Bytes)-1] ^= 1
			r.Certificate = string(pem.EncodeToMemory(block))
		})},
		{"no CA in the chain", RuleChain, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.IsCA = false })
		}},
		{"intermediate may not sign", RuleChain, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
		}},
		{"path too long", RuleChain, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.MaxPathLenZero = true })
			below := newAuthority(t, caTemplate("Below"), w.inter)
			w.issuer = below
			replied(func(r *Reply, _ *world) { r.CAChain = append(r.CAChain, pemText(below.cert)) })(t, w)
		}},
		{"names outside the CA's constraints", RuleChain, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"keylime.example"} })
		}},
		{"intermediate for clients only", RuleUsage, func(t *testing.T, w *world) {
			w.reissue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}},
	})
}

func TestJudgeRefusesUsage(t *testing.T) {
	usage := func(usages ...x509.ExtKeyUsage) func(*testing.T, *world) {
		return template(func(c *x509.Certificate) { c.ExtKeyUsage = usages })
	}
	expectRefusals(t, []bend{
		{"the other usage", RuleUsage, usage(x509.ExtKeyUsageClientAuth)},
		{"both usages", RuleUsage, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)},
		{"twice the same", RuleUsage, usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageServerAuth)},
		{"any usage", RuleUsage, usage(x509.ExtKeyUsageAny)},
		{"no usage", RuleUsage, usage()},
		{"an unknown usage beside it", RuleUsage, template(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 99}}
		})},
		{"a CA", RuleUsage, template(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })},
		{"signs certificates", RuleUsage, template(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
		{"signs CRLs", RuleUsage, template(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign })},
		{"no digitalSignature", RuleUsage, template(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })},
		{"no key usage", RuleUsage, template(func(c *x509.Certificate) { c.KeyUsage = 0 })},
	})
}

func TestJudgeRefusesSVID(t *testing.T) {
	const id = "spiffe://example.org/keylime/verifier"
	svid := func(change func(t *testing.T, w *world)) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			w.withURI(t, id)
			change(t, w)
		}
	}
	other := func(uri string) func(t *testing.T, w *world) {
		return svid(func(t *testing.T, w *world) {
			w.withURI(t, uri)
			w.request.URI = id
		})
	}
	expectRefusals(t, []bend{
		{"no SPIFFE ID", RuleSPIFFE, svid(func(_ *testing.T, w *world) { w.leaf.URIs = nil })},
		{"another path", RuleSPIFFE, other("spiffe://example.org/keylime/registrar")},
		{"another trust domain", RuleSPIFFE, other("spiffe://example.com/keylime/verifier")},
		{"another scheme", RuleSPIFFE, other("https://example.org/keylime/verifier")},
		{"two", RuleSPIFFE, svid(func(_ *testing.T, w *world) { w.leaf.URIs = append(w.leaf.URIs, w.leaf.URIs[0]) })},
		{"a CA", RuleSPIFFE, svid(func(_ *testing.T, w *world) { w.leaf.IsCA, w.leaf.BasicConstraintsValid = true, true })},
		{"signs CRLs", RuleSPIFFE, svid(func(_ *testing.T, w *world) { w.leaf.KeyUsage |= x509.KeyUsageCRLSign })},
		{"not asked for", RuleName, svid(func(_ *testing.T, w *world) { w.request.URI = "" })},
	})
}

// What an error says is printable and short, whatever the reply says.
func TestJudgementErrorIsPrintable(t *testing.T) {
	w := newWorld(t)
	w.leaf.Subject.CommonName = "\x1b[2J" + strings.Repeat("ü", 40)
	w.leaf.DNSNames = nil
	_, err := w.judge(t)
	if err == nil {
		t.Fatal("accepted")
	}
	text := err.Error()
	if len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("error text %q", text)
	}
}
