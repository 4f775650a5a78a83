// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// Which keys in the TPM are taken: the configuration has to say that what reads
// them can.
func TestKeysInTheTPM(t *testing.T) {
	with := func(lines string) string {
		return strings.Replace(spire, `name    = "tenant"`, "name = \"tenant\"\n"+lines, 1)
	}
	c, err := load(t, with("key = \"tpm\"\nloads_tss2 = true"))
	if err != nil {
		t.Fatal(err)
	}
	if tenant := &c.Certificates[1]; tenant.Key != "tpm" || tenant.NoTPMKey() != "" {
		t.Errorf("key %q, %s", tenant.Key, tenant.NoTPMKey())
	}
	if why := c.Certificates[0].NoTPMKey(); !strings.Contains(why, "1.3 or newer") {
		t.Errorf("verifier: %q", why)
	}
	for _, lines := range []string{`key = "auto"`, `key = "sealed"`, `key = "file"`, `loads_tss2 = true`} {
		if _, err := load(t, with(lines)); err != nil {
			t.Errorf("%s: %v", lines, err)
		}
	}
	for profile, word := range map[string]string{"keylime-agent": "Rust agent", "keylime-push-agent": "no key", "general": "nothing says"} {
		if why := (&Certificate{Profile: profile}).NoTPMKey(); !strings.Contains(why, word) {
			t.Errorf("%s: %q", profile, why)
		}
	}
}
