// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// emptyItem is a certificate without bytes. The roots that it shall be known by come
// along: a new anchor is trusted before the first certificate of its CA.
func (a *Agent) emptyItem(c *config.Certificate) install.Item {
	usage := x509.ExtKeyUsageServerAuth
	if c.Usage() == config.Client {
		usage = x509.ExtKeyUsageClientAuth
	}
	item := install.Item{
		Name: c.Name, Profile: c.Profile, Usage: usage, Files: files(c), Mode: keylime.Mode(c.Mode), Agents: c.Agents, AgentVersion: c.AgentVersion,
		CA: issuer.EncodeCertificates(a.anchors[c.Anchor]), Service: install.Service(c.Service),
		Output: install.Output{PEM: c.BundleFile, SPIFFE: c.SPIFFEBundleFile},
	}
	if id, err := spiffeid.FromString(c.URI); err == nil {
		item.Output.TrustDomain = id.TrustDomain().Name()
	}
	return item
}

func files(c *config.Certificate) install.Files {
	f := c.Files
	return install.Files{
		Certificate: f.Certificate, Key: f.Key, Combined: f.Combined, Leaf: f.Leaf, Intermediates: f.Intermediates,
		CA: f.CA, PKCS12: f.PKCS12, PasswordFile: f.PasswordFile, Owner: f.Owner, KeyMode: f.Mode(),
	}
}

func names(orders []*order) []string {
	list := make([]string, len(orders))
	for i, o := range orders {
		list[i] = o.cert.Name
	}
	return list
}
