// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// NoTPMKey says why what reads this certificate cannot use a key that is in the
// TPM; "" where it can. It is known of Keylime's programs, and a matter of
// configuration otherwise: whether a program's OpenSSL has the provider is not seen
// from outside.
func (c *Certificate) NoTPMKey() string {
	switch {
	case c.Usage() == Root:
		return "it has no key"
	case c.Profile == agentProfile:
		return "the Rust agent reads the EC key out of its file, which one that is in a TPM is not"
	case c.Files.PKCS12 != "":
		return "a PKCS#12 file holds the key itself"
	case c.LoadsTSS2:
		return ""
	case strings.HasPrefix(c.Profile, "keylime-"):
		return "Keylime's Python programs load a PEM file, and sign with a key in the TPM only where their OpenSSL has the provider tpm2-openssl 1.3 or newer (Debian 12 has 1.1.1)"
	}
	return "nothing says that the program loads TSS2 keys"
}

const agentProfile = "keylime-agent"

func (c *Certificate) checkKey(at atFunc) *fault {
	switch {
	case c.Profile == agentProfile && c.LoadsTSS2:
		return at("loads_tss2", "remove the line", "loads_tss2: %s", c.NoTPMKey())
	case c.Key == "tpm" && c.NoTPMKey() != "":
		return at("key", noTPMHint(c), `key = "tpm": %s`, c.NoTPMKey())
	case c.Key == "sealed", c.Key == "file", c.Key == "tpm", c.Key == "auto":
		return nil
	}
	return at("key", `"tpm", "sealed", "file" or "auto"; sealed is the default`, "key = %q", c.Key)
}

func noTPMHint(c *Certificate) string {
	if c.Profile == agentProfile {
		return `key = "sealed" keeps it off the disk`
	}
	return `key = "sealed" keeps it off the disk; where the program does load keys of a TPM, say so: loads_tss2 = true`
}
