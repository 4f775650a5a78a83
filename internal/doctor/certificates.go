// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/unitfile"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
)

func certificateChecks() []Check {
	needs := []string{"certificates-installed"}
	return []Check{
		{
			Name: "certificates-installed", Area: AreaInstall, root: true, run: checkInstalled,
			Asks:   "every configured certificate is in the set in use",
			Remedy: "omen-agent renew",
		},
		{
			Name: "certificate-validity", Area: AreaInstall, needs: needs, run: ofCertificates(checkValidity),
			Asks:   "none has expired, begins later, or should have been renewed long ago",
			Remedy: "omen-agent renew; and see that omen-agent run is running",
		},
		{
			Name: "certificate-chain", Area: AreaInstall, needs: needs, run: ofCertificates(checkChain),
			Asks:   "each chains to a root of its set's CA file",
			Remedy: "omen-agent renew; where the CA was replaced: docs/operations.md, Replacing a CA",
		},
		{
			Name: "certificate-pair", Area: AreaInstall, needs: needs, run: ofCertificates(checkPair),
			Asks:   "each key belongs to its certificate",
			Remedy: "omen-agent renew makes both anew",
		},
		{
			Name: "certificate-usage", Area: AreaInstall, needs: needs, run: ofCertificates(checkUsage),
			Asks:   "each has exactly the extended key usage of its profile: to Keylime, clientAuth is an administrator",
			Remedy: "set server_flag and client_flag in the PKI role so that only one is true, then omen-agent renew",
		},
		{
			Name: "certificate-names", Area: AreaInstall, needs: needs, run: ofCertificates(checkNames),
			Asks:   "each has the common name, the DNS names, the addresses and the URI of agent.toml",
			Remedy: "omen-agent renew; where it is refused, add the name to the PKI role: docs/operations.md, The host's PKI roles",
		},
		{
			Name: "certificate-owner", Area: AreaInstall, needs: needs, run: ofDamage(isRights, "mode and owner of every file are as they were installed"),
			Asks:   "files of the set have the mode and the owner that they were installed with",
			Remedy: "omen-agent renew, or run, puts them right; find out who changed them",
		},
		{
			Name: "certificate-files", Area: AreaInstall, needs: needs, run: ofDamage(isContent, "no file was changed, added or taken away"),
			Asks:   "nobody changed, added or took away files of the set",
			Remedy: "omen-agent renew issues anew what was changed; find out who did",
		},
		{
			Name: "certificate-keys", Area: AreaInstall, needs: needs, run: checkKeys,
			Asks:   "sealed keys are where their services read them",
			Remedy: "omen-agent unseal; at boot systemctl enable " + unitfile.Unseal + " has it done; docs/operations.md, The state that keys are sealed to",
		},
		{
			Name: "last-renewal", Area: AreaInstall, root: true, run: checkLastRenewal,
			Asks:   "the last attempt to renew succeeded, and the set in use was proven",
			Remedy: "mend what the message names, then omen-agent renew",
		},
	}
}

// ofSets is a check of every set that is installed.
func (p *patient) ofSets(ctx context.Context, check func(agent.Surveyed) []Result) []Result {
	return eachOf(p.surveyed(ctx), "there is none to look at", func(s agent.Surveyed) []Result {
		if s.Err != nil {
			return nil
		}
		return check(s)
	})
}

// ofCertificates makes a check of one certificate one of all that are there.
func ofCertificates(check func(*patient, install.Inspected) []Result) func(context.Context, *patient) []Result {
	return func(ctx context.Context, p *patient) []Result {
		return p.ofSets(ctx, func(s agent.Surveyed) []Result {
			var results []Result
			for _, c := range s.Certificates {
				if c.Missing == nil {
					results = append(results, check(p, c)...)
				}
			}
			return results
		})
	}
}

func checkInstalled(ctx context.Context, p *patient) []Result {
	return eachOf(p.surveyed(ctx), "agent.toml has no certificate", func(s agent.Surveyed) []Result {
		if errors.Is(s.Err, install.ErrNotInstalled) {
			return problem(s.Set, "", "nothing of this set is installed")
		}
		if s.Err != nil {
			return p.failed(s.Set, s.Err)
		}
		var missing []string
		for _, c := range s.Certificates {
			if c.Missing != nil {
				missing = append(missing, c.Name)
			}
		}
		if len(missing) > 0 {
			return append(problem(s.Set, "", "without %s", strings.Join(missing, ", ")), ok(s.Set, "%d others", len(s.Certificates)-len(missing))...)
		}
		return ok(s.Set, "%d certificates in %s", len(s.Certificates), s.Folder)
	})
}

func checkValidity(_ *patient, c install.Inspected) []Result {
	now, life := time.Now(), c.NotAfter.Sub(c.NotBefore)
	seen := "until " + c.NotAfter.Format(time.RFC3339)
	switch {
	case now.After(c.NotAfter):
		return problem(c.Name, "", "expired %s", c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return problem(c.Name, "look at this host's clock", "begins %s", c.NotBefore.Format(time.RFC3339))
	case now.After(c.NotBefore.Add(life / 4 * 3)): // it is due after two thirds
		return warning(c.Name, "", "%s: renewal is overdue", seen)
	}
	return ok(c.Name, "%s", seen)
}

func checkChain(p *patient, c install.Inspected) []Result {
	if c.Chain != nil {
		return p.failed(c.Name, c.Chain)
	}
	return ok(c.Name, "reaches a root")
}

func checkPair(p *patient, c install.Inspected) []Result {
	switch {
	case c.NotGiven:
		return nil // told by certificate-keys
	case c.Pair != nil:
		return p.failed(c.Name, c.Pair)
	}
	return ok(c.Name, "key and certificate belong together")
}

func checkUsage(p *patient, c install.Inspected) []Result {
	if c.Usage != nil {
		return p.failed(c.Name, c.Usage)
	}
	return ok(c.Name, "one usage, the right one")
}

func checkNames(p *patient, c install.Inspected) []Result {
	want := p.certificate(c.Name)
	if want == nil {
		return nil
	}
	if c.CommonName != want.CommonName {
		return problem(c.Name, "", "it is for %q, agent.toml says %q", c.CommonName, want.CommonName)
	}
	for _, name := range want.DNS {
		if !slices.Contains(c.DNSNames, name) {
			return problem(c.Name, "", "it lacks the DNS name %s", name)
		}
	}
	for _, ip := range want.IP {
		if !slices.Contains(c.Addresses, ip.String()) {
			return problem(c.Name, "", "it lacks the address %s", ip)
		}
	}
	if want.URI != "" && !slices.Contains(c.URIs, want.URI) {
		return problem(c.Name, "", "it lacks the URI %s", want.URI)
	}
	return ok(c.Name, "%s", c.CommonName)
}

func isRights(d install.Damage) bool  { return d.Harm == install.Reowned }
func isContent(d install.Damage) bool { return d.Harm != install.Reowned }

// ofDamage tells of one kind of harm.
func ofDamage(is func(install.Damage) bool, good string) func(context.Context, *patient) []Result {
	return func(ctx context.Context, p *patient) []Result {
		return p.ofSets(ctx, func(s agent.Surveyed) []Result {
			var results []Result
			for _, d := range s.Damage {
				if is(d) {
					results = append(results, problem(s.Set, "", "%s", d)...)
				}
			}
			if len(results) == 0 {
				return ok(s.Set, "%s", good)
			}
			return results
		})
	}
}

func checkKeys(ctx context.Context, p *patient) []Result {
	return p.ofSets(ctx, func(s agent.Surveyed) []Result {
		var results []Result
		for _, c := range s.Certificates {
			switch {
			case c.Missing != nil || c.KeyPlace != install.KeySealed:
			case c.NotGiven:
				results = append(results, problem(c.Name, "", "the key is sealed, and not where its service reads it")...)
			default:
				results = append(results, ok(c.Name, "sealed on the disk, plain in memory")...)
			}
		}
		if len(results) == 0 {
			return ok(s.Set, "no key is sealed")
		}
		return results
	})
}

func checkLastRenewal(_ context.Context, p *patient) []Result {
	if len(p.config.Certificates) == 0 {
		return notApplicable("agent.toml has no certificate")
	}
	status, err := p.agent.Status()
	switch {
	case err != nil:
		return p.failed("", err)
	case status.Unproven:
		return problem("", "omen-agent renew, or rollback", "an installation ended in the middle: nobody has seen this set served")
	case status.Failure != nil:
		return problem("", "", "%s failed: %s", status.LastAttempt.Format(time.RFC3339), status.Failure.Message)
	case status.LastSuccess.IsZero():
		return notApplicable("none is on record")
	}
	return ok("", "%s", status.LastSuccess.Format(time.RFC3339))
}

// isKeylime reports that a certificate is for one of Keylime's components.
func isKeylime(c config.Certificate) bool { return c.Profile != config.General }
