// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"slices"
	"strings"
)

// Usage of a certificate, as the PKI roles are named: <host>.<usage>.
const (
	Server = "server" // extended key usage serverAuth
	Client = "client" // extended key usage clientAuth
	Root   = "root"   // no certificate: the root file only
)

// Profiles gives the usage of each profile. A certificate has one usage, never
// both: Keylime takes whoever holds clientAuth for an administrator.
var Profiles = map[string]string{
	"keylime-verifier":        Server,
	"keylime-verifier-client": Client,
	"keylime-registrar":       Server,
	"keylime-tenant":          Client,
	"keylime-agent":           Server,
	"keylime-push-agent":      Root,
}

func profileNames() []string { return append(slices.Sorted(maps.Keys(Profiles)), General) }

// Usage is the certificate's usage by its profile; of profile general as it is said.
func (c *Certificate) Usage() string {
	if c.Profile == General && (c.ForUsage == Server || c.ForUsage == Client) {
		return c.ForUsage
	}
	return Profiles[c.Profile]
}

// PKIRole is the role of the issuing CA that signs this certificate for a host:
// the configured one, or <host>.<usage>.
func (c *Certificate) PKIRole(host string) string {
	if c.Role != "" {
		return c.Role
	}
	return host + "." + c.Usage()
}

// Serves names what reads this certificate: a unit, a command, or Keylime's
// tenant, which reads it at each call.
func (c *Certificate) Serves() string {
	switch {
	case c.Service.Unit != "":
		return c.Service.Unit
	case len(c.Service.Start) > 0:
		return c.Service.Start[0]
	case c.Profile == General && len(c.Service.Reload) > 0:
		return c.Service.Reload[0]
	case c.Profile == General && c.Service.Program != "":
		return c.Service.Program
	case c.Profile == General:
		return "what reads " + c.Files.Folder
	case c.Profile == "keylime-tenant":
		return "keylime_tenant"
	case c.Profile == "keylime-push-agent":
		return "keylime_push_model_agent.service"
	default:
		return "keylime_" + strings.TrimSuffix(strings.TrimPrefix(c.Profile, "keylime-"), "-client") + ".service"
	}
}
