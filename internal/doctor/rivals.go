// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"funlab.casa/omen/install/rival"
)

func rivalChecks() []Check {
	return []Check{
		{
			Name: "rivals", Area: AreaInstall, root: true, run: checkRivals,
			Asks:   "nothing else renews the same certificates: a timer, a service, a line of cron",
			Remedy: "disable it; where it only reads, name it in readers of [keylime]",
		},
		{
			Name: "static-token", Area: AreaInstall, root: true, run: checkTokens,
			Asks:   "no token of OpenBao stands in a script, a unit, a crontab or an environment file, or where `bao login` leaves it",
			Remedy: "bao token revoke it, then take it out of the file: whoever has read that file has it",
		},
		{
			Name: "spire-server", Area: AreaIssuing, root: true, run: checkSPIRE,
			Asks:   "no SPIRE server of this host owns the trust domain of a `uri`: a domain has one authority",
			Remedy: "leave uri out of [[certificate]]; or let SPIRE federate with, or have its CA signed by, the PKI mount",
		},
	}
}

func checkRivals(ctx context.Context, p *patient) []Result {
	found, err := p.agent.Rivals(ctx)
	results := eachOf(found, "", func(r rival.Rival) []Result {
		seen := r.Reason
		if len(r.Remarks) > 0 {
			seen += "; " + strings.Join(r.Remarks, "; ")
		}
		if r.Active {
			return problem(r.Name, r.Disable, "%s", seen)
		}
		return warning(r.Name, r.Disable, "switched off: %s", seen)
	})
	switch {
	case err != nil:
		results = append(results, unread(err)...)
	case results[0].Status == NotApplicable:
		return ok("", "nobody else renews")
	}
	return slices.DeleteFunc(results, func(r Result) bool { return r.Status == NotApplicable })
}

// unread tells of what a search could not read.
func unread(err error) []Result {
	return warning("", "look at what is named by hand, or try again when it can be read", "not everything was looked at: %s",
		strings.ReplaceAll(err.Error(), "\n", "; "))
}

func checkTokens(ctx context.Context, p *patient) []Result {
	found, err := p.agent.Tokens(ctx)
	results := eachOf(found, "", func(t rival.Token) []Result {
		if t.Name == "" {
			return warning(t.File, "bao token revoke -self, then remove the file", "a token that bao login left")
		}
		return problem(t.File, "", "it holds a token (%s)", t.Name)
	})
	switch {
	case err != nil:
		results = append(results, unread(err)...)
	case results[0].Status == NotApplicable:
		return ok("", "none is found")
	}
	return slices.DeleteFunc(results, func(r Result) bool { return r.Status == NotApplicable })
}

// spireFiles are where SPIRE's server has its configuration by its own documents and
// packages.
var spireFiles = []string{"/etc/spire/server.conf", "/etc/spire/server/server.conf", "/opt/spire/conf/server/server.conf", "/opt/spire/conf/server.conf"}

// trustDomain is the setting in HCL and in JSON.
var trustDomain = regexp.MustCompile(`(?m)^[^#/\n]*\btrust_domain"?[ \t]*[=:][ \t]*"(?:spiffe://)?([a-z0-9._-]{1,255})/?"`)

// maxSPIRE bounds SPIRE's configuration, in bytes.
const maxSPIRE = 256 << 10

func checkSPIRE(_ context.Context, p *patient) []Result {
	return eachOf(spireFiles, "no SPIRE server is here", func(file string) []Result {
		text, err := readBounded(p.under(file), maxSPIRE)
		if err != nil {
			return nil
		}
		domain := trustDomain.FindSubmatch(text)
		if domain == nil {
			return warning(file, "", "a SPIRE server whose trust domain is not seen")
		}
		for i := range p.config.Certificates {
			c := &p.config.Certificates[i]
			if id, err := url.Parse(c.URI); err == nil && c.URI != "" && id.Host == string(domain[1]) {
				return problem(file, "", "this SPIRE server owns %s, and certificate %s asks for %s from OpenBao", domain[1], c.Name, c.URI)
			}
		}
		return ok(file, "SPIRE owns %s; no certificate of agent.toml is in it", domain[1])
	})
}
