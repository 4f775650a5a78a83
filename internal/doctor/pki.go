// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

func pkiChecks() []Check {
	return []Check{
		{
			Name: "pki-role", Area: AreaIssuing, needs: []string{"login"}, patience: long, run: checkPKIRole,
			Asks:   "for each certificate the PKI role is there, the host's policy lets it ask, and the CA behind it looks at what is asked for",
			Remedy: "write the role <host>.<usage> and the policy omen-host-<host>: docs/operations.md, The host's PKI roles",
		},
		{
			Name: "pki-names", Area: AreaIssuing, needs: []string{"pki-role"}, patience: long, run: checkPKINames,
			Asks:   "the PKI role refuses names and addresses that are not this host's: any name, names beside and below its own, a foreign address, a foreign SPIFFE ID. Asked by trying, with names that nobody has; only OpenBao's words for such a refusal count. It does not refuse the certificate's own name",
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

// anyName asks for it.
var anyName = issuer.Request{CommonName: nobody}

// probeTTL is what a certificate would live that a role ought not to have issued.
const probeTTL = issuer.MinTTL

// signPatience is how long one request may take. A CA that fails, as one whose issuer is
// gone, is asked again and again by a renewal, which hopes for another node.
const signPatience = 5 * time.Second

// answer is what the CA said to a request that it should refuse.
type answer struct {
	issued *x509.Certificate // it did not
	err    *bao.Error
}

// unknownRole reports that the CA has no role of that name.
func (a answer) unknownRole() bool { return a.says("unknown role") }

// otherKeys reports that the CA looks at no name, since it wants other keys.
func (a answer) otherKeys() bool { return a.says("requires keys of type", "requires a minimum of a") }

// noMount reports that nothing is mounted there, which a policy allows to be asked.
func (a answer) noMount() bool { return a.says("no handler for route") }

// says reports that the CA rejected the request with one of these words.
func (a answer) says(words ...string) bool {
	return a.err != nil && a.err.Kind == bao.KindRejected &&
		slices.ContainsFunc(words, func(some string) bool { return strings.Contains(a.err.Message, some) })
}

func (a answer) denied() bool { return a.err != nil && a.err.Kind == bao.KindDenied }

// failing reports that OpenBao could not say, as where the role's issuer is not there.
func (a answer) failing() bool { return a.err != nil && a.err.Kind == bao.KindFailing }

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
	session := p.loggedIn(ctx).session
	ctx, cancel := context.WithTimeout(ctx, signPatience)
	defer cancel()
	signed, err := p.agent.OpenBao().Sign(ctx, session, path, role, csr, request.TTL)
	var e *bao.Error
	switch {
	case errors.As(err, &e) && (e.Kind == bao.KindRejected || e.Kind == bao.KindDenied || e.Kind == bao.KindFailing):
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

// stored is the path of the role itself, which an operator reads.
func (i issuance) stored() string { return i.path + "/roles/" + i.role }

func (i issuance) compare() string {
	return "bao read " + i.stored() + ", and hold it against docs/operations.md, The host's PKI roles"
}

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
		said, err := p.tryFor(ctx, i.path, i.role, anyName)
		switch {
		case err != nil:
			return p.failed(i.String(), err)
		case said.denied():
			return problem(i.String(), p.hint(said.err), "denied: the mount or the policy is missing")
		case said.unknownRole():
			return problem(i.String(), p.hint(said.err), "%s", said.err.Message)
		case said.noMount():
			return problem(i.String(), "bao secrets list; then correct path in [pki] or [[certificate]]", "nothing is mounted at %s", i.path)
		case said.otherKeys():
			return problem(i.String(), "bao patch "+i.stored()+" key_type=ec key_bits=256", "%s: omen-agent's are EC P-256", said.err.Message)
		case said.issued == nil && !said.refuses(anyName):
			return problem(i.String(), i.compare(), "it issues nothing: %s", said.err.Message)
		}
		return ok(i.String(), "may be asked")
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
			said, err := p.tryFor(ctx, path, role, anyName)
			switch {
			case err != nil:
				return p.failed(path, err)
			case said.failing():
				return p.failed(path, said.err)
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
		said, err := p.tryFor(ctx, path, role, anyName)
		switch {
		case err != nil:
			return p.failed(about, err)
		case said.failing():
			return p.failed(about, said.err)
		case said.denied(), said.unknownRole(), said.noMount():
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
