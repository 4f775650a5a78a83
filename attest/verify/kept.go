// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"sync/atomic"
	"time"
)

// issuers are the configured intermediate certificates of one subject. Of whole,
// what is above an EK certificate is for package x509 to find.
type issuers struct {
	list  []*issuer
	whole bool
}

// issuer is one of them with what was last found above it: the signatures there
// need no check for every EK.
type issuer struct {
	certificate *x509.Certificate
	above       atomic.Pointer[above]
}

// above is every chain from an issuer to a root, at any time between from and
// until, the latter excluded. A zero time is no bound.
type above struct {
	from, until time.Time
	chains      [][]*x509.Certificate // the issuer first
	whole       bool                  // as in issuers
}

// restrictions are the extensions by which a certificate restricts what is below
// it: name constraints, policy mappings, policy constraints, inhibit anyPolicy
// (RFC 5280, 4.2.1). Package x509 weighs them over the whole chain.
var restrictions = [...]asn1.ObjectIdentifier{{2, 5, 29, 30}, {2, 5, 29, 33}, {2, 5, 29, 36}, {2, 5, 29, 54}}

func restricts(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if slices.ContainsFunc(restrictions[:], e.Id.Equal) {
			return true
		}
	}
	return false
}

// keptChains are the chains that package x509 would find for an EK certificate
// with no other intermediates than the configured ones, at the cost of one
// signature check if all issuers of its name have one key. None means that package
// x509 must be asked: there may be some all the same.
func (r *Roots) keptChains(ek *x509.Certificate, now time.Time) (chains [][]*x509.Certificate) {
	named := r.issuers[string(ek.RawIssuer)]
	if named == nil || named.whole || !r.ordinary(ek, now) {
		return nil
	}
	var signer []byte
	for _, i := range named.list {
		key := i.certificate.RawSubjectPublicKeyInfo
		if !bytes.Equal(key, signer) && ek.CheckSignatureFrom(i.certificate) != nil {
			continue
		}
		signer = key
		found := r.aboveAt(i, now)
		if found.whole {
			return nil
		}
		for _, upper := range found.chains {
			if slices.ContainsFunc(upper, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, ek.RawSubject) }) {
				return nil
			}
			chains = append(chains, append([]*x509.Certificate{ek}, upper...))
		}
	}
	return chains
}

// ordinary reports whether an EK certificate is valid for itself and without
// anything that bears on the certificates above it.
func (r *Roots) ordinary(ek *x509.Certificate, now time.Time) bool {
	_, root := r.rank[string(ek.Raw)]
	return !root && !now.IsZero() && !now.Before(ek.NotBefore) && !now.After(ek.NotAfter) &&
		len(ek.UnhandledCriticalExtensions) == 0 && !restricts(ek)
}

// aboveAt is what stands above an issuer at a time. Two who ask at once for the
// first time both find it.
func (r *Roots) aboveAt(i *issuer, now time.Time) *above {
	a := i.above.Load()
	if a == nil || now.Before(a.from) || !a.until.IsZero() && !now.Before(a.until) {
		a = r.findAbove(i.certificate, now)
		i.above.Store(a)
	}
	return a
}

func (r *Roots) findAbove(c *x509.Certificate, now time.Time) *above {
	a := &above{}
	a.from, a.until = r.unchanged(now)
	found, err := c.Verify(r.options(r.intermediates, now))
	if err != nil {
		return a // nothing above it: no chain leads through it
	}
	for _, chain := range found {
		a.whole = a.whole || slices.ContainsFunc(chain, restricts)
		if pathLengths(chain) {
			a.chains = append(a.chains, chain)
		}
	}
	return a
}

// pathLengths reports whether each CA of a chain allows those below it, an EK
// certificate below the first (RFC 5280, 4.2.1.9).
func pathLengths(chain []*x509.Certificate) bool {
	for below, c := range chain {
		if c.BasicConstraintsValid && c.MaxPathLen >= 0 && below > c.MaxPathLen {
			return false
		}
	}
	return true
}

// unchanged is the time around now in which each configured certificate stays as
// valid as it is: until is excluded, and zero is no bound.
func (r *Roots) unchanged(now time.Time) (from, until time.Time) {
	i, exact := slices.BinarySearchFunc(r.changes, now, time.Time.Compare)
	if exact {
		i++
	}
	if i > 0 {
		from = r.changes[i-1]
	}
	if i < len(r.changes) {
		until = r.changes[i]
	}
	return from, until
}

// index makes the issuers of the configured intermediates, and the times at which
// a certificate begins or ceases to be valid.
func (r *Roots) index(roots, intermediates []*x509.Certificate) {
	r.issuers = make(map[string]*issuers)
	of := func(c *x509.Certificate) *issuers {
		// Its last valid moment is NotAfter itself.
		r.changes = append(r.changes, c.NotBefore, c.NotAfter.Add(1))
		name := string(c.RawSubject)
		if r.issuers[name] == nil {
			r.issuers[name] = &issuers{}
		}
		return r.issuers[name]
	}
	for _, c := range roots {
		of(c).whole = true
	}
	for _, c := range intermediates {
		named := of(c)
		if c.BasicConstraintsValid && c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0) {
			named.list = append(named.list, &issuer{certificate: c})
		}
	}
	slices.SortFunc(r.changes, time.Time.Compare)
	r.changes = slices.CompactFunc(r.changes, time.Time.Equal)
}
