// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// strangers are requests for what is not this certificate's, each by what is wrong
// with it; any name is one more.
func strangers(c *config.Certificate) map[string]issuer.Request {
	own := c.CommonName
	all := map[string]issuer.Request{
		"a foreign SPIFFE ID": {
			CommonName: own, URI: "spiffe://" + nobody + "/doctor",
		},
		"a foreign address": {CommonName: own, IP: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, // RFC 5737
	}
	for what, name := range map[string]string{"names below its own": "omen-doctor." + own, "names beside its own": beside(own)} {
		if name != "" && len(name) <= 64 {
			all[what] = issuer.Request{CommonName: name}
		}
	}
	return all
}

// beside is a name in the domain of another; "" where it has none.
func beside(name string) string {
	_, domain, found := strings.Cut(name, ".")
	if !found {
		return ""
	}
	return "omen-doctor." + domain
}

// refuses reports that the CA refused the very thing that is foreign in a request, by
// OpenBao's words for it (generateCreationBundle in its pki). Who refuses for another
// cause, as the lifetime, has told nothing of names.
func (a answer) refuses(r issuer.Request) bool {
	switch {
	case len(r.IP) > 0:
		return a.says("IP Subject Alternative Names are not allowed in this role", fmt.Sprintf("the IP address %q is not allowed in this role", r.IP[0].String()))
	case r.URI != "":
		return a.says("URI Subject Alternative Names are not allowed in this role",
			"URI Subject Alternative Names were provided via CSR which are not valid for this role")
	}
	return a.refusesName(r.CommonName)
}

// refusesName reports that the CA refused a common name.
func (a answer) refusesName(name string) bool {
	return a.says("common name "+name+" not allowed by this role", "subject alternate name "+name+" not allowed by this role")
}

// grants reports that a certificate has what was asked for. A role may leave out what
// the request says (use_csr_sans, use_csr_common_name).
func grants(c *x509.Certificate, r issuer.Request) bool {
	switch {
	case len(r.IP) > 0:
		return slices.ContainsFunc(c.IPAddresses, func(ip net.IP) bool { return ip.Equal(r.IP[0].AsSlice()) })
	case r.URI != "":
		return len(c.URIs) > 0
	}
	return c.Subject.CommonName == r.CommonName || slices.Contains(c.DNSNames, r.CommonName)
}

func checkPKINames(ctx context.Context, p *patient) []Result {
	return eachOf(p.issuances(ctx), noCertificate, func(i issuance) []Result {
		first, err := p.tryFor(ctx, i.path, i.role, anyName)
		if err != nil || first.issued == nil && !first.refuses(anyName) {
			return notApplicable("%s: pki-role comes first", i)
		}
		results := i.foreign("any name", anyName, first)
		requests := strangers(i.cert)
		for _, what := range slices.Sorted(maps.Keys(requests)) {
			said, err := p.tryFor(ctx, i.path, i.role, requests[what])
			if err != nil {
				results = append(results, p.failed(i.String(), fmt.Errorf("%s: %w", what, err))...)
				continue
			}
			results = append(results, i.foreign(what, requests[what], said)...)
		}
		if len(results) == 0 {
			return ok(i.String(), "refuses names and addresses of others")
		}
		return slices.Compact(results) // its own name is refused to each request that has it
	})
}

// foreign tells what an answer to a stranger's request shows: nothing where it was
// refused.
func (i issuance) foreign(what string, asked issuer.Request, said answer) []Result {
	own := i.cert.CommonName
	switch {
	case said.refuses(asked):
		return nil
	case said.issued == nil && said.refusesName(own):
		return problem(i.String(), "bao read "+i.stored()+": allowed_domains has to list it, with allow_bare_domains=true and cn_validations=hostname",
			"it refuses %s, the certificate's own name: no renewal succeeds", own)
	case said.issued == nil:
		return warning(i.String(), i.compare(), "not known whether it issues %s: it refuses for another cause: %s", what, said.err.Message)
	case !grants(said.issued, asked):
		return warning(i.String(), "bao patch "+i.stored()+" use_csr_common_name=true use_csr_sans=true",
			"it leaves out what a request says: asked for %s it issued another certificate, serial %s", what, probe.Serial(said.issued))
	}
	return problem(i.String(), "", "it issues %s: %s, serial %s, until %s; its key is thrown away",
		what, asked.CommonName, probe.Serial(said.issued), said.issued.NotAfter.Format(time.RFC3339))
}
