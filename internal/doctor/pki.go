// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

func pkiChecks() []Check {
	return []Check{
		{
			Name: "pki-role", Area: AreaIssuing, needs: []string{"login"}, run: checkPKIRole,
			Asks:   "for each certificate the PKI role is there, and the host's policy lets it ask",
			Remedy: "write the role <host>.<usage> and the policy omen-host-<host>: docs/operations.md, The host's PKI roles",
		},
		{
			Name: "pki-names", Area: AreaIssuing, needs: []string{"pki-role"}, run: checkPKINames,
			Asks:   "the PKI role refuses names and addresses that are not this host's: any name, names beside and below its own, a foreign address, a foreign SPIFFE ID. Asked by trying, with names that nobody has",
			Remedy: "give every field of the role, and every name literally: docs/operations.md, The host's PKI roles",
		},
		{
			Name: "pki-other-host", Area: AreaIssuing, needs: []string{"login"}, run: checkPKIOtherHost,
			Asks:   "the host's policy keeps it from the PKI roles of other hosts",
			Remedy: "name the host's sign paths literally in omen-host-<host>, and give the auth role no policy that allows more",
		},
		{
			Name: "pki-client-auth", Area: AreaIssuing, needs: []string{"login"}, run: checkPKIClientAuth,
			Asks:   "no certificate with clientAuth is to be had for this host from the CA by which Keylime knows its administrators, unless it is configured",
			Remedy: "delete the role <host>.client of that mount; give Keylime's client certificates a CA of their own: docs/operations.md, A CA for Keylime's clients",
		},
		{
			Name: "pki-anchor", Area: AreaIssuing, run: checkAnchors,
			Asks:   "the roots that chains must reach are valid, and will be for a month",
			Remedy: "replace the CA in time: docs/operations.md, Replacing a CA",
		},
	}
}

// nobody is a name that no host can have (RFC 6761, section 6.4).
const nobody = "omen-doctor.invalid"

// probeTTL is what a certificate would live that a role ought not to have issued.
const probeTTL = issuer.MinTTL

// answer is what the CA said to a request that it should refuse.
type answer struct {
	issued *x509.Certificate // it did not
	err    *bao.Error
}

// unknownRole reports that the CA has no role of that name.
func (a answer) unknownRole() bool {
	return a.err != nil && a.err.Kind == bao.KindRejected && strings.Contains(a.err.Message, "unknown role")
}

// otherKeys reports that the CA looks at no name, since it wants keys of another type.
func (a answer) otherKeys() bool {
	return a.err != nil && a.err.Kind == bao.KindRejected && strings.Contains(a.err.Message, "requires keys of type")
}

func (a answer) denied() bool { return a.err != nil && a.err.Kind == bao.KindDenied }

// tryFor asks the CA for a certificate that nobody shall have, over a key that is
// forgotten when this function ends.
func (p *patient) tryFor(ctx context.Context, path, role string, request issuer.Request) (answer, error) {
	request.Name, request.Usage, request.TTL = "doctor", issuer.ServerAuth, probeTTL
	key, err := issuer.NewKey(ctx, issuer.ModeFile, nil)
	if err != nil {
		return answer{}, err
	}
	csr, err := key.CSR(request)
	if err != nil {
		return answer{}, err
	}
	signed, err := p.agent.OpenBao().Sign(ctx, p.loggedIn(ctx).session, path, role, csr, request.TTL)
	var e *bao.Error
	switch {
	case errors.As(err, &e) && (e.Kind == bao.KindRejected || e.Kind == bao.KindDenied):
		return answer{err: e}, nil
	case err != nil:
		return answer{}, err
	}
	block, _ := pem.Decode([]byte(signed.Certificate))
	if block == nil {
		return answer{}, errors.New("the CA's answer is no certificate")
	}
	issued, err := x509.ParseCertificate(block.Bytes)
	return answer{issued: issued}, err
}

// issuance is a role that issues certificates to this host, and what for.
type issuance struct {
	path, role string
	cert       *config.Certificate // the first of it
}

func (i issuance) String() string { return i.path + "/sign/" + i.role }

// issuances are those of the configuration, each once.
func (p *patient) issuances(ctx context.Context) []issuance {
	var all []issuance
	for i := range p.config.Certificates {
		c := &p.config.Certificates[i]
		if c.Usage() == config.Root {
			continue
		}
		one := issuance{path: c.Path, role: c.PKIRole(p.loggedIn(ctx).session.Host), cert: c}
		if !slices.ContainsFunc(all, func(known issuance) bool { return known.String() == one.String() }) {
			all = append(all, one)
		}
	}
	return all
}

const noCertificate = "agent.toml has no certificate that can be asked for"

func checkPKIRole(ctx context.Context, p *patient) []Result {
	return eachOf(p.issuances(ctx), noCertificate, func(i issuance) []Result {
		said, err := p.tryFor(ctx, i.path, i.role, issuer.Request{CommonName: nobody})
		switch {
		case err != nil:
			return p.failed(i.String(), err)
		case said.denied():
			return problem(i.String(), p.hint(said.err), "denied: the mount or the policy is missing")
		case said.unknownRole():
			return problem(i.String(), p.hint(said.err), "%s", said.err.Message)
		case said.otherKeys():
			return problem(i.String(), "bao write "+i.path+"/roles/"+i.role+" … key_type=ec key_bits=256", "%s: omen-agent's are EC P-256", said.err.Message)
		}
		return ok(i.String(), "may be asked")
	})
}

// strangers are requests for what is not this certificate's, each by what is wrong
// with it.
func strangers(c *config.Certificate) map[string]issuer.Request {
	own := c.CommonName
	all := map[string]issuer.Request{
		"any name": {CommonName: nobody},
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

func checkPKINames(ctx context.Context, p *patient) []Result {
	return eachOf(p.issuances(ctx), noCertificate, func(i issuance) []Result {
		var results []Result
		requests := strangers(i.cert)
		for _, what := range slices.Sorted(maps.Keys(requests)) {
			said, err := p.tryFor(ctx, i.path, i.role, requests[what])
			switch {
			case err != nil:
				results = append(results, p.failed(i.String(), fmt.Errorf("%s: %w", what, err))...)
			case said.denied() || said.unknownRole() || said.otherKeys():
				return notApplicable("%s: pki-role comes first", i)
			case said.issued != nil:
				results = append(results, problem(i.String(), "", "it issues %s: %s, serial %s, which ends in %s; its key is thrown away",
					what, requests[what].CommonName, probe.Serial(said.issued), probeTTL)...)
			}
		}
		if len(results) == 0 {
			return ok(i.String(), "refuses names and addresses of others")
		}
		return results
	})
}

// mounts are those that issue to this host.
func (p *patient) mounts() []string {
	var all []string
	for i := range p.config.Certificates {
		if c := &p.config.Certificates[i]; c.Path != "" && !slices.Contains(all, c.Path) {
			all = append(all, c.Path)
		}
	}
	return all
}

// checkPKIOtherHost asks for roles of hosts that there are not: a policy that is a
// pattern lets it ask, and the CA knows no such role.
func checkPKIOtherHost(ctx context.Context, p *patient) []Result {
	own := p.loggedIn(ctx).session.Host
	return eachOf(p.mounts(), noCertificate, func(path string) []Result {
		for _, role := range []string{"omen-doctor.server", own + "-omen-doctor.server", own + ".omen-doctor"} {
			said, err := p.tryFor(ctx, path, role, issuer.Request{CommonName: nobody})
			switch {
			case err != nil:
				return p.failed(path, err)
			case !said.denied():
				return problem(path, "", "the policy lets this host ask %s/sign/%s", path, role)
			}
		}
		return ok(path, "roles of other hosts are denied")
	})
}

// checkPKIClientAuth looks where a client certificate could come from that nobody
// configured.
func checkPKIClientAuth(ctx context.Context, p *patient) []Result {
	if !p.agent.SharesCA() {
		return ok("", "clients of Keylime have a CA of their own, or there is no Keylime here")
	}
	role := p.loggedIn(ctx).session.Host + ".client"
	var paths []string
	for i := range p.config.Certificates {
		if c := &p.config.Certificates[i]; c.Profile != config.General && c.Usage() == config.Server && !slices.Contains(paths, c.Path) {
			paths = append(paths, c.Path)
		}
	}
	return eachOf(paths, "no certificate of Keylime's servers", func(path string) []Result {
		about := path + "/sign/" + role
		if slices.ContainsFunc(p.config.Certificates, func(c config.Certificate) bool { return c.Usage() == config.Client && c.Path == path }) {
			return warning(about, "", "%s", agent.SharedCA)
		}
		said, err := p.tryFor(ctx, path, role, issuer.Request{CommonName: nobody})
		switch {
		case err != nil:
			return p.failed(about, err)
		case said.denied(), said.unknownRole():
			return warning(about, "", "this host has none from there; but %s", agent.SharedCA)
		}
		return problem(about, "", "this host, which needs none, may have a certificate with which it administers Keylime")
	})
}

// anchorLeft is when the end of a root is told.
const anchorLeft = 30 * 24 * time.Hour

func checkAnchors(_ context.Context, p *patient) []Result {
	var files []string
	for i := range p.config.Certificates {
		if file := p.config.Certificates[i].Anchor; file != "" && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return eachOf(files, "agent.toml names no root", func(file string) []Result {
		return eachOf(p.anchors(file), file+" holds no root", func(root *x509.Certificate) []Result {
			seen := fmt.Sprintf("%s, until %s", root.Subject, root.NotAfter.Format(time.DateOnly))
			switch left := time.Until(root.NotAfter); {
			case left <= 0:
				return problem(file, "", "%s: expired", seen)
			case left < anchorLeft:
				return warning(file, "", "%s", seen)
			}
			return ok(file, "%s", seen)
		})
	})
}
