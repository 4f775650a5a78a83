// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func sound(t *testing.T, text string) (*Config, []error) {
	t.Helper()
	dir := folder(t)
	path := filepath.Join(dir, "agent.toml")
	write(t, path, strings.ReplaceAll(text, "DIR", dir), 0o644)
	return Sound(path)
}

// TestSound keeps what is right, and names all that is not.
func TestSound(t *testing.T) {
	if c, faults := sound(t, spire); len(faults) != 0 || len(c.Certificates) != 2 || c.OpenBao.CAFile == "" {
		t.Fatalf("a good one: %v, %+v", faults, c)
	}
	bent := strings.NewReplacer(`ca_file   = "DIR/ca.pem"`, `ca_file = "DIR/none.pem"`+"\nskip_verify = true", `"tenant.keylime.funlab.casa"`, `"*.funlab.casa"`).Replace(spire)
	c, faults := sound(t, bent)
	if len(faults) != 3 || len(c.Certificates) != 1 || c.Certificates[0].Name != "verifier" || len(c.OpenBao.Addresses) != 1 || c.OpenBao.CAFile != "" {
		t.Errorf("%v, %+v", faults, c)
	}
	for i, want := range []string{"skip_verify", "ca_file", "common_name"} {
		var e *Error
		if !errors.As(faults[i], &e) || e.Line == 0 || e.Hint == "" || !strings.Contains(e.Error(), want) {
			t.Errorf("fault %d: %v", i, faults[i])
		}
	}
	for name, text := range map[string]string{
		"no TOML": "[", "no certificate": "[tpm]\n", "two of a name": spire + strings.ReplaceAll(spire[strings.Index(spire, "[[cert"):strings.Index(spire, "[[certificate]]\nname    = \"tenant\"")], "keylime-verifier", "keylime-registrar"),
	} {
		if c, faults := sound(t, text); len(faults) == 0 || c.TPM.Device != "/dev/tpmrm0" {
			t.Errorf("%s: %v, %+v", name, faults, c)
		}
	}
	if c, faults := Sound(filepath.Join(t.TempDir(), "absent.toml")); len(faults) != 1 || c.TPM.Device == "" {
		t.Errorf("absent: %v, %+v", faults, c)
	}
}

// TestSoundFindsWhatLoadRefuses: none is sound that is not right.
func TestSoundFindsWhatLoadRefuses(t *testing.T) {
	for _, row := range [][2]string{
		{`"https://spire`, `"http://spire`}, {`role      = "keylime"`, ""}, {"[pki]", "[tpm]\nek = \"rsa\"\n[pki]"}, {"[pki]", "[seal]\npcrs = [23]\n[pki]"},
		{`"DIR/root.pem"`, `"root.pem"`}, {"[pki]", "[keylime]\nreaders = [\"x\"]\n[pki]"}, {"[pki]", "[keylime]\nclient_ca = \"/none\"\n[pki]"},
		{`"keylime-tenant"`, `"keylime-verifier"`}, {`name    = "tenant"`, `name    = "tenant"` + "\nbundle_file = \"/etc/x\"\nttl = \"1m\""},
	} {
		text := strings.Replace(spire, row[0], row[1], 1)
		_, loadErr := load(t, text)
		if _, faults := sound(t, text); loadErr == nil || len(faults) == 0 {
			t.Errorf("%q: %v, %v", row[1], loadErr, faults)
		}
	}
}
