// SPDX-License-Identifier: Apache-2.0

package config

import "reflect"

// checkTogether refuses what one host cannot have both of.
func (c *Config) checkTogether() *fault {
	at := map[string]int{}
	for i, cert := range c.Certificates {
		at[cert.Profile] = i + 1
	}
	verifier, client := at["keylime-verifier"], at["keylime-verifier-client"]
	if verifier > 0 && client > 0 && c.Certificates[verifier-1].Mode != c.Certificates[client-1].Mode {
		return wrong("certificate", client-1, "mode", "give both the same mode: they configure one verifier", "profiles keylime-verifier and keylime-verifier-client with two modes")
	}
	push := at["keylime-push-agent"]
	if push == 0 {
		return nil
	}
	for i, cert := range c.Certificates {
		if cert.Usage() == Client {
			return wrong("certificate", i, "profile", "keep it on another host: Keylime takes whoever holds a client certificate for an administrator, and a host that pushes its evidence needs none",
				"profile %s beside keylime-push-agent", cert.Profile)
		}
	}
	if agent := at["keylime-agent"]; agent > 0 {
		return wrong("certificate", push-1, "profile", "remove one of the two: a host runs one agent", "profile keylime-push-agent beside keylime-agent")
	}
	return nil
}

// checkRoot looks at a table without a certificate. Whatever is about one must not
// be there, so that nobody believes that one is kept.
func (c *Certificate) checkRoot(i int, at atFunc) *fault {
	for _, about := range []struct {
		key   string
		value any
	}{
		{"common_name", c.CommonName}, {"dns", c.DNS}, {"ip", c.IP}, {"uri", c.URI}, {"key", c.Key}, {"ttl", c.TTL}, {"path", c.Path},
		{"role", c.Role}, {"agents", c.Agents}, {"loads_tss2", c.LoadsTSS2}, {"agent_version", c.AgentVersion}, {"spiffe_bundle_file", c.SPIFFEBundleFile},
	} {
		if !reflect.ValueOf(about.value).IsZero() {
			return at(about.key, "remove the line: profile "+c.Profile+" has no certificate, it gets the root alone", "%s in a table without certificate", about.key)
		}
	}
	if f := c.checkProfile(i, at); f != nil {
		return f
	}
	if f := c.Service.check(i); f != nil {
		return f
	}
	if f := c.checkBundles(at); f != nil {
		return f
	}
	return resolveFile("certificate", i, "anchor", &c.Anchor, "the root that the servers' certificates reach, as PEM")
}
