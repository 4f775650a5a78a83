// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const web = `
[[certificate]]
name = "web"
profile = "general"
usage = "server"
common_name = "web.example"
[certificate.files]
folder = "/etc/nginx/omen"
combined = "web.pem"
owner = "root:www-data"
key_mode = "0640"
[certificate.service]
unit = "nginx.service"
action = "reload"
probe = "127.0.0.1:443"
`

func TestGeneral(t *testing.T) {
	c, err := load(t, spire+web+strings.NewReplacer(`"web"`, `"spire"`, "/etc/nginx", "/etc/spire", `"server"`, `"client"`, "probe", "# probe").Replace(web))
	if err != nil {
		t.Fatal(err)
	}
	one, two := c.Certificates[2], c.Certificates[3]
	if one.PKIRole("h") != "h.server" || two.PKIRole("h") != "h.client" || one.Files.Mode() != 0o640 || one.Key != "sealed" || one.Mode != "" {
		t.Errorf("%+v %+v", one, two)
	}
	for text, want := range map[string]string{
		"": NoAct, `unit = "a.service"`: Restart, `reload = ["/bin/true"]`: Reload, "signal = \"HUP\"\npid_file = \"/run/a.pid\"\nprogram = \"a\"": Reload,
	} {
		head, _, _ := strings.Cut(web, "unit =")
		c, err := load(t, spire+head+text+"\n")
		if err != nil || c.Certificates[2].Service.Action != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestGeneralRefused(t *testing.T) {
	for _, bend := range []struct{ from, to, key string }{
		{`"server"`, `"root"`, "usage"},
		{`usage = "server"`, "", "usage"},
		{`name = "web"`, `name = "keylime"`, "name"},
		{`usage =`, "mode = \"edit\"\nusage =", "mode"},
		{`usage =`, "agents = [\"x\"]\nusage =", "agents"},
		{`usage =`, "agent_version = \"0.2.9\"\nusage =", "agent_version"},
		{"/etc/nginx/omen", "omen", "folder"},
		{"/etc/nginx/omen", "/omen", "folder"},
		{"/etc/nginx/omen", "/etc/nginx/", "folder"},
		{"/etc/nginx/omen", "/etc/keylime/certs", "folder"},
		{"/etc/nginx/omen", "/var/lib/omen-agent/state", "folder"},
		{`"web.pem"`, `"a/b"`, "combined"},
		{`"web.pem"`, `"web.crt"`, "combined"},
		{`"web.pem"`, `"x.sealed"`, "combined"},
		{`"web.pem"`, `"web.bundle.pem"`, "combined"},
		{`"web.pem"`, `"web.bundle.json"`, "combined"},
		{"combined =", "leaf = \"web.bundle.pem\"\ncombined =", "leaf"},
		{"combined =", "ca = \"web.key\"\ncombined =", "ca"},
		{"combined =", "ca = \".omen-manifest\"\ncombined =", "ca"},
		{`"web.pem"`, "\"a\"\nleaf = \"a\"", "leaf"},
		{`"0640"`, `"0644"`, "key_mode"},
		{"root:www-data", "root:", "owner"},
		{"combined =", "pkcs12 =", "pkcs12"},
		{"combined =", "pkcs12_password_file = \"DIR/ca.pem\"\npkcs12 =", "pkcs12_password_file"},
		{`"reload"`, `"kill"`, "action"},
		{`unit = "nginx.service"`, "", "action"},
		{`action = "reload"`, "action = \"none\"\nreload = [\"/bin/true\"]", "action"},
		{`action = "reload"`, `reload = ["true"]`, "reload"},
		{`action = "reload"`, `signal = "HUP"`, "signal"},
		{`unit = "nginx.service"`, `signal = "KILL"`, "signal"},
		{`unit = "nginx.service"`, `signal = "HUP"`, "signal"},
		{`"server"`, `"client"`, "probe"},
	} {
		if !strings.Contains(web, bend.from) {
			t.Fatalf("nothing to bend: %s", bend.from)
		}
		_, err := load(t, spire+strings.Replace(web, bend.from, bend.to, 1))
		if err == nil || !strings.Contains(err.Error(), bend.key) {
			t.Errorf("%s → %s: %v, want one about %s", bend.from, bend.to, err, bend.key)
		}
	}
	for _, keys := range []string{"usage = \"server\"", "[certificate.files]\nfolder = \"/etc/a/b\"", "[certificate.service]\naction = \"reload\"", "[certificate.service]\nprogram = \"a\""} {
		head, _, _ := strings.Cut(spire, "[certificate.service]")
		if _, err := load(t, head+keys+"\n"); err == nil {
			t.Errorf("accepted for Keylime: %s", keys)
		}
	}
	two := strings.Replace(web, `"web"`, `"other"`, 1)
	if _, err := load(t, spire+web+two); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("two sets in one folder: %v", err)
	}
}

// TestGeneralPassword: a password is root's alone.
func TestGeneralPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	text := strings.Replace(web, "combined =", "pkcs12_password_file = \""+file+"\"\npkcs12 =", 1)
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o640: false} {
		write(t, file, "secret", mode)
		if _, err := load(t, spire+text); (err == nil) != good {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	tpm := strings.Replace(text, "usage =", "key = \"tpm\"\nloads_tss2 = true\nusage =", 1)
	write(t, file, "secret", 0o600)
	if _, err := load(t, spire+tpm); err == nil || !strings.Contains(err.Error(), "PKCS#12") {
		t.Errorf("PKCS#12 of a key in the TPM: %v", err)
	}
}
