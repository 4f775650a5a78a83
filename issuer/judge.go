// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Rule names what a reply broke. The words are for errors, logs and metrics.
type Rule string

// The rules of [Judge], in the order in which they are looked at.
const (
	RuleSize          Rule = "size"           // something is longer or more than a real reply holds
	RuleSyntax        Rule = "syntax"         // not exactly one PEM certificate where one belongs
	RuleKey           Rule = "key"            // the certificate is for another key
	RuleValidity      Rule = "validity"       // the certificate's dates: not yet, no longer, too long, too short
	RuleAnchor        Rule = "anchor"         // the pinned root is no root, or the reply brings another one
	RuleIssuerExpired Rule = "issuer-expired" // the root or an intermediate is not valid at this time
	RuleChain         Rule = "chain"          // no chain from the certificate to the pinned root
	RuleSPIFFE        Rule = "spiffe"         // not an X509-SVID of the SPIFFE ID asked for
	RuleUsage         Rule = "usage"          // another usage, a further one, or a CA
	RuleName          Rule = "name"           // a name too many, too few, or of a kind not asked for
)

// JudgementError is why a reply was not accepted. Its text is printable
// whatever the reply contained.
type JudgementError struct {
	Rule   Rule
	Detail string // what was found and what was wanted
	Err    error  // the cause from crypto/x509 or go-spiffe, or nil
}

// Error names the rule and the detail.
func (e *JudgementError) Error() string {
	return fmt.Sprintf("reply breaks rule %s: %s", e.Rule, e.Detail)
}

// Unwrap returns the cause.
func (e *JudgementError) Unwrap() error { return e.Err }

func broken(rule Rule, format string, args ...any) error {
	return &JudgementError{Rule: rule, Detail: clean(fmt.Sprintf(format, args...))}
}

func brokenBy(rule Rule, what string, err error) error {
	return &JudgementError{Rule: rule, Detail: clean(what + ": " + err.Error()), Err: err}
}

// Reply is the data of an answer to pki/sign/:role, as OpenBao names it: PEM
// texts, without a final newline.
type Reply struct {
	Certificate string   // certificate
	IssuingCA   string   // issuing_ca; may be empty when CAChain has it
	CAChain     []string // ca_chain, one certificate each; the root in it is optional
}

// Issued is a reply that was found to be exactly what was asked for.
type Issued struct {
	Leaf     *x509.Certificate
	ChainPEM []byte    // the certificate, then the intermediates in order; each ends in a newline
	CAPEM    []byte    // the intermediates, then every pinned root; each ends in a newline
	NotAfter time.Time // the first end in the chain: from then on nobody accepts it
}

// RenewAt is two thirds of the way from the start of the certificate to the
// first end in its chain; see [RenewAt].
func (i *Issued) RenewAt() time.Time { return RenewAt(i.Leaf.NotBefore, i.NotAfter) }

// Tolerances of the dates.
const (
	// lifetimeSlack is what a certificate may live longer than asked: OpenBao
	// starts it not_before_duration (30 s unless the role says otherwise)
	// before now, and counts in whole seconds.
	lifetimeSlack = 5 * time.Minute
	// minRemaining is what must be left: less is over before it is served.
	minRemaining = time.Minute
	// likelySkew is the difference up to which a start in the future is told
	// as clocks that differ. It is refused all the same: nobody whose clock is
	// right would accept the certificate yet.
	likelySkew = 5 * time.Minute
)

// Judge decides whether reply is the certificate that r asked for, over the
// key whose DER SubjectPublicKeyInfo is spki, at the time now. It checks that
//
//   - everything is within bounds and is one PEM certificate each;
//   - the certificate is over our key;
//   - it is valid now, for at least a minute more, and not for longer than
//     asked (5 minutes of slack);
//   - it chains to one of the anchors, the pinned self-signed roots, through CAs
//     valid now, and the reply brings no other root;
//   - with a SPIFFE ID, it is a valid X509-SVID under that root;
//   - it is no CA, has digitalSignature without keyCertSign and cRLSign, and
//     its extended key usage is exactly the one asked for;
//   - its names are exactly those asked for: the common name, the DNS names
//     (the common name is one of them), the addresses, the SPIFFE ID, and no
//     name of any other kind.
//
// Every refusal is a [*JudgementError]; a bad r is the error of [Request.Check].
func Judge(reply Reply, r Request, spki []byte, anchors []*x509.Certificate, now time.Time) (*Issued, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	leaf, served, err := parseReply(reply)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, spki) {
		return nil, broken(RuleKey, "the certificate is over another key than ours")
	}
	if err := judgeDates(leaf, r.TTL, now); err != nil {
		return nil, err
	}
	chain, err := buildChain(leaf, served, anchors, r.Usage, now)
	if err != nil {
		return nil, err
	}
	if err := judgeSVID(chain, r.URI, now); err != nil {
		return nil, err
	}
	for _, judge := range []func(*x509.Certificate, Request) error{judgeUsage, judgeNames} {
		if err := judge(leaf, r); err != nil {
			return nil, err
		}
	}
	return issued(chain, anchors, now)
}

// judgeDates checks the certificate's own validity against the lifetime asked.
func judgeDates(leaf *x509.Certificate, ttl time.Duration, now time.Time) error {
	if early := leaf.NotBefore.Sub(now); early > 0 {
		hint := "check this host's clock and the server's"
		if early <= likelySkew {
			hint = "the clocks of this host and the server differ by about that much"
		}
		return broken(RuleValidity, "valid only from %s, in %s: %s",
			stamp(leaf.NotBefore), early.Round(time.Second), hint)
	}
	if remaining := leaf.NotAfter.Sub(now); remaining < minRemaining {
		return broken(RuleValidity, "valid until %s: less than %s left", stamp(leaf.NotAfter), minRemaining)
	}
	if lifetime := leaf.NotAfter.Sub(leaf.NotBefore); lifetime > ttl+lifetimeSlack {
		return broken(RuleValidity, "lifetime %s, asked for %s", lifetime, ttl)
	}
	return nil
}

// judgeUsage checks that the certificate can be used for what was asked and for
// nothing else.
func judgeUsage(leaf *x509.Certificate, r Request) error {
	switch {
	case leaf.IsCA:
		return broken(RuleUsage, "the certificate is a CA")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return broken(RuleUsage, "key usage lacks digitalSignature")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return broken(RuleUsage, "key usage allows signing certificates or CRLs")
	case len(leaf.UnknownExtKeyUsage) != 0:
		return broken(RuleUsage, "extended key usage %s beside %sAuth", leaf.UnknownExtKeyUsage[0], r.Usage)
	case len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != r.Usage.extKeyUsage():
		return broken(RuleUsage, "extended key usage is not exactly %sAuth", r.Usage)
	}
	return nil
}

// issued puts the accepted chain, certificate first and root last, into the
// files' shape. The CA file has every anchor, in their order: it is the same
// whichever of them the chain reaches.
func issued(chain, anchors []*x509.Certificate, now time.Time) (*Issued, error) {
	below := len(chain) - 1
	out := &Issued{
		Leaf: chain[0], NotAfter: chain[0].NotAfter,
		ChainPEM: EncodeCertificates(chain[:below]),
		CAPEM:    EncodeCertificates(slices.Concat(chain[1:below], anchors)),
	}
	for _, cert := range chain[1:] {
		if cert.NotAfter.Before(out.NotAfter) {
			out.NotAfter = cert.NotAfter
		}
	}
	if out.NotAfter.Sub(now) < minRemaining {
		return nil, broken(RuleIssuerExpired, "a CA of the chain ends at %s: less than %s left",
			stamp(out.NotAfter), minRemaining)
	}
	return out, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
