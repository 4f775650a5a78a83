// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"strings"
)

// Keylime says whom Keylime's services believe beside the CAs of the certificates
// that this host has itself.
type Keylime struct {
	ClientCA string   `toml:"client_ca"` // PEM file: roots that clients are verified by
	ServerCA string   `toml:"server_ca"` // PEM file: roots, and intermediates, that servers are verified by
	Readers  []string `toml:"readers"`   // units and files of cron that name the folder of the certificates and only read there
}

func (c *Config) checkKeylime() *fault {
	k := &c.Keylime
	if k.ClientCA != "" {
		if f := resolveFile("keylime", 0, "client_ca", &k.ClientCA, "the root of the CA that Keylime's client certificates come from, as PEM"); f != nil {
			return f
		}
	}
	if k.ServerCA != "" {
		return resolveFile("keylime", 0, "server_ca", &k.ServerCA, "the CA that Keylime's server certificates come from, as PEM: root and intermediate")
	}
	return nil
}

// ours is what no bundle may be written to.
var ours = []string{"/var/lib/omen-agent/", "/run/omen-agent/", "/etc/keylime/certs/"}

// A bundleFile is a path of the configuration that a CA bundle is written to.
type bundleFile struct{ key, path string }

// bundles are those of a certificate; an empty path is none.
func (c *Certificate) bundles() []bundleFile {
	return []bundleFile{{"bundle_file", c.BundleFile}, {"spiffe_bundle_file", c.SPIFFEBundleFile}}
}

// checkBundles looks at where the CA bundles of a certificate shall be found.
func (c *Certificate) checkBundles(at atFunc) *fault {
	for _, out := range c.bundles() {
		if out.path == "" {
			continue
		}
		if !filepath.IsAbs(out.path) || filepath.Clean(out.path) != out.path || filepath.Dir(out.path) == "/" {
			return at(out.key, "an absolute path of a file in a folder that is there", "%s = %q", out.key, out.path)
		}
		for _, folder := range ours {
			if strings.HasPrefix(out.path, folder) {
				return at(out.key, "choose a folder of the program that reads it", "%s = %q: only the agent itself writes there", out.key, out.path)
			}
		}
	}
	if c.SPIFFEBundleFile != "" && c.URI == "" {
		return at("spiffe_bundle_file", "give this certificate a uri: its trust domain is the bundle's", "spiffe_bundle_file without uri")
	}
	return nil
}

// checkBundlesOnce refuses two bundles at one path.
func (c *Config) checkBundlesOnce() *fault {
	seen := map[string]bool{"": true}
	for i, cert := range c.Certificates {
		for _, out := range cert.bundles() {
			if out.path != "" && seen[out.path] {
				return wrong("certificate", i, out.key, "give each bundle a file of its own", "%s stands twice", out.path)
			}
			seen[out.path] = true
		}
	}
	return nil
}
