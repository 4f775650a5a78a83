// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// folder returns a folder that root alone can write, with the two PEM files that
// the configuration names.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ca.pem", "root.pem"} {
		write(t, filepath.Join(dir, name), "x", 0o644)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

const spire = `[openbao]
addresses = ["https://spire.funlab.casa:8200"]
ca_file   = "DIR/ca.pem"
role      = "keylime"

[pki]
anchor = "DIR/root.pem"

[[certificate]]
name    = "verifier"
profile = "keylime-verifier"
common_name = "verifier.keylime.funlab.casa"
dns     = ["localhost"]
ip      = ["10.10.2.62", "127.0.0.1"]

[[certificate]]
name    = "tenant"
profile = "keylime-tenant"
common_name = "tenant.keylime.funlab.casa"

[certificate.service]
probe = "127.0.0.1:8881"
`

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	dir := folder(t)
	path := filepath.Join(dir, "agent.toml")
	write(t, path, strings.ReplaceAll(text, "DIR", dir), 0o644)
	return Load(path)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, spire)
	if err != nil {
		t.Fatal(err)
	}
	v := c.Certificates[0]
	if c.TPM.Device != "/dev/tpmrm0" || c.OpenBao.AuthPath != "auth/tpm" || v.Path != "pki_int" ||
		v.TTL.Duration != 24*time.Hour || v.Anchor != c.PKI.Anchor {
		t.Errorf("defaults: %+v", c)
	}
	if c.Boot.Hold.Duration != 90*time.Second {
		t.Errorf("boot held for %s", c.Boot.Hold)
	}
	if c, err := load(t, spire+"[boot]\nhold = \"0s\"\n"); err != nil || c.Boot.Hold.Duration != 0 {
		t.Errorf("nothing to hold: %v", err)
	}
	if got := v.PKIRole("spire"); got != "spire.server" {
		t.Errorf("role %q", got)
	}
	if got := c.Certificates[1].PKIRole("spire"); got != "spire.client" {
		t.Errorf("role %q", got)
	}
}

// What says who this host is, where the TPM does not say it itself.
func TestKeysAboutTheHost(t *testing.T) {
	c, err := load(t, strings.Replace(spire, "[pki]", "wanted_name = \"spire\"\n[tpm]\nek_certificate = \"DIR/ca.pem\"\nek_intermediates = \"DIR/root.pem\"\n[pki]", 1))
	if err != nil {
		t.Fatal(err)
	}
	if c.OpenBao.WantedName != "spire" || !strings.HasSuffix(c.TPM.EKCertificate, "/ca.pem") || !strings.HasSuffix(c.TPM.EKIntermediates, "/root.pem") {
		t.Errorf("%+v, %+v", c.OpenBao, c.TPM)
	}
	if c, err = load(t, strings.Replace(spire, "[pki]", "[tpm]\nek_certificate = \"none\"\n[pki]", 1)); err != nil || c.TPM.EKCertificate != NoCertificate {
		t.Errorf("%v", err)
	}
	if c, err = load(t, spire); err != nil || c.TPM.EKCertificate != "" {
		t.Errorf("the default is %q (%v)", c.TPM.EKCertificate, err)
	}
}

const pushing = `[openbao]
addresses = ["https://spire.funlab.casa:8200"]
ca_file   = "DIR/ca.pem"
role      = "keylime"

[pki]
anchor = "DIR/root.pem"

[[certificate]]
name    = "push-agent"
profile = "keylime-push-agent"
`

// A host that pushes its evidence gets the root, and can be given nothing with
// which it would be an administrator.
func TestPushAgentHasNoCertificate(t *testing.T) {
	c, err := load(t, pushing)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Certificates[0]; got.Usage() != Root || got.Key != "" || got.TTL.Duration != 0 || got.Anchor != c.PKI.Anchor || got.Mode != "drop-in" {
		t.Errorf("%+v", got)
	}
	for more, fault := range map[string]string{
		"common_name = \"agent.funlab.casa\"": "common_name in", "dns = [\"x\"]": "dns in", "ttl = \"24h\"": "ttl in", "key = \"file\"": "key in",
		"role = \"x\"": "role in", "path = \"pki_int\"": "path in", "ip = [\"192.0.2.1\"]": "ip in", "uri = \"spiffe://x/y\"": "uri in", "agents = [\"x\"]": "agents in",
		"[[certificate]]\nname = \"tenant\"\nprofile = \"keylime-tenant\"\ncommon_name = \"t.x\"":                                                                                           "keylime-tenant beside keylime-push-agent",
		"[[certificate]]\nname = \"v\"\nprofile = \"keylime-verifier\"\ncommon_name = \"t.x\"\n[[certificate]]\nname = \"c\"\nprofile = \"keylime-verifier-client\"\ncommon_name = \"t.x\"": "keylime-verifier-client beside",
		"[[certificate]]\nname = \"agent\"\nprofile = \"keylime-agent\"\ncommon_name = \"t.x\"":                                                                                             "keylime-push-agent beside keylime-agent",
		"[[certificate]]\nname = \"root\"\nprofile = \"keylime-registrar\"\ncommon_name = \"t.x\"":                                                                                          `name = "root"`,
	} {
		_, err := load(t, pushing+more+"\n")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), fault) || e.Hint == "" || e.Line == 0 {
			t.Errorf("%s: %v", more, err)
		}
	}
	if _, err := load(t, pushing+"[[certificate]]\nname = \"registrar\"\nprofile = \"keylime-registrar\"\ncommon_name = \"r.x\"\n"); err != nil {
		t.Errorf("a server certificate beside it: %v", err)
	}
}

// Each row bends one line of a good file and expects the fault, its line and a
// remedy.
func TestFaultsNameLineAndRemedy(t *testing.T) {
	for _, row := range []struct {
		name, old, new string
		line           int
		fault          string
	}{
		{"syntax", `role      = "keylime"`, `role = keylime`, 4, "expected value"},
		{"unknown key", `role      = "keylime"`, `rolle = "keylime"`, 4, `unknown key "openbao.rolle"`},
		{"skip verification", `role      = "keylime"`, "role = \"keylime\"\ninsecure_skip_verify = true", 5, "unknown key"},
		{"unknown table", "[pki]", "[pkii]", 6, "unknown key"},
		{"key of another table", `name    = "tenant"`, "name = \"tenant\"\nsink = \"file\"", 18, "unknown key"},
		{"mode", `name    = "tenant"`, "name = \"tenant\"\nmode = \"append\"", 18, `mode = "append"`},
		{"two modes of one verifier", `"keylime-tenant"`, "\"keylime-verifier-client\"\nmode = \"edit\"", 19, "two modes"},
		{"certificate of a push agent", `"keylime-verifier"`, `"keylime-push-agent"`, 12, "common_name in a table without certificate"},
		{"no address", `["https://spire.funlab.casa:8200"]`, `[]`, 2, "no address"},
		{"plain http", `https://spire`, `http://spire`, 2, "not https"},
		{"no role", `role      = "keylime"`, ``, 1, "no role"},
		{"no CA", `DIR/ca.pem`, `DIR/none.pem`, 3, "no such file"},
		{"relative anchor", `DIR/root.pem`, `root.pem`, 7, "not an absolute path"},
		{"profile", `"keylime-tenant"`, `"nginx"`, 18, `profile = "nginx"`},
		{"name twice", `name    = "tenant"`, `name = "verifier"`, 17, "stands twice"},
		{"name of the bundle", `name    = "tenant"`, `name = "ca"`, 17, "name ="},
		{"profile twice", `"keylime-tenant"`, `"keylime-verifier"`, 18, "stands twice"},
		{"client of no verifier", `"keylime-verifier"`, `"keylime-verifier-client"`, 9, "without keylime-verifier"},
		{"DNS name twice", `["localhost"]`, `["localhost", "localhost"]`, 13, "dns name"},
		{"too many names", `["localhost"]`, `["a` + strings.Repeat(`", "a`, 32) + `"]`, 13, "more than 32"},
		{"name is a path", `name    = "tenant"`, `name = "../x"`, 17, "name ="},
		{"wildcard", `"tenant.keylime`, `"*.keylime`, 19, "common_name"},
		{"wildcard SAN", `["localhost"]`, `["*.localhost"]`, 13, "dns name"},
		{"e-mail SAN", `["localhost"]`, `["root@localhost"]`, 13, "dns name"},
		{"no address of a host", `"10.10.2.62", `, `"0.0.0.0", `, 14, "ip 0.0.0.0"},
		{"bad address", `"10.10.2.62"`, `"10.10.2.620"`, 14, "ParseAddr"},
		{"strange key", `name    = "tenant"`, "name = \"tenant\"\nkey = \"usb\"", 18, `key = "usb"`},
		{"key in the TPM for a Python program", `name    = "tenant"`, "name = \"tenant\"\nkey = \"tpm\"", 18, "1.3 or newer"},
		{"key in the TPM for the Rust agent", `profile = "keylime-tenant"`, "profile = \"keylime-agent\"\nkey = \"tpm\"", 19, "Rust agent"},
		{"Rust agent that loads TSS2", `profile = "keylime-tenant"`, "profile = \"keylime-agent\"\nloads_tss2 = true", 19, "loads_tss2"},
		{"ttl", `name    = "tenant"`, "name = \"tenant\"\nttl = \"1m\"", 18, "ttl ="},
		{"uri", `name    = "tenant"`, "name = \"tenant\"\nuri = \"http://x\"", 18, "uri ="},
		{"name of the clients' bundle", `name    = "tenant"`, `name = "clients-ca"`, 17, "name ="},
		{"clients' CA that is not there", "[pki]", "[keylime]\nclient_ca = \"DIR/none.pem\"\n[pki]", 7, "no such file"},
		{"boot held for too long", "[pki]", "[boot]\nhold = \"9m\"\n[pki]", 7, "hold ="},
		{"boot held for less than nothing", "[pki]", "[boot]\nhold = \"-1s\"\n[pki]", 7, "hold ="},
		{"relative servers' CA", "[pki]", "[keylime]\nserver_ca = \"ca.pem\"\n[pki]", 7, "not an absolute path"},
		{"relative bundle", `name    = "tenant"`, "name = \"tenant\"\nbundle_file = \"ca.pem\"", 18, "bundle_file ="},
		{"bundle in the set", `name    = "tenant"`, "name = \"tenant\"\nbundle_file = \"/etc/keylime/certs/ca.crt\"", 18, "only the agent itself"},
		{"bundle with a way up", `name    = "tenant"`, "name = \"tenant\"\nbundle_file = \"/etc/x/../y/ca.pem\"", 18, "bundle_file ="},
		{"two bundles, one file", `name    = "tenant"`, "name = \"tenant\"\nuri = \"spiffe://x/y\"\nbundle_file = \"/etc/x/ca\"\nspiffe_bundle_file = \"/etc/x/ca\"", 20, "stands twice"},
		{"SPIFFE bundle of no trust domain", `name    = "tenant"`, "name = \"tenant\"\nspiffe_bundle_file = \"/etc/x/b.json\"", 18, "without uri"},
		{"probe", `probe = "127.0.0.1:8881"`, `probe = "127.0.0.1"`, 22, "probe ="},
		{"relative start", `probe = "127.0.0.1:8881"`, `start = ["keylime_verifier"]`, 22, "start ="},
		{"start without pid file", `probe = "127.0.0.1:8881"`, `start = ["/bin/keylime_verifier"]`, 21, "without pid_file"},
		{"device", "[pki]", "[tpm]\ndevice = \"tpm0\"\n[pki]", 7, "device ="},
		{"wanted name with a dot", `role      = "keylime"`, "role = \"keylime\"\nwanted_name = \"spire.funlab.casa\"", 5, "wanted_name ="},
		{"wanted name root", `role      = "keylime"`, "role = \"keylime\"\nwanted_name = \"root\"", 5, "wanted_name ="},
		{"wanted name in upper case", `role      = "keylime"`, "role = \"keylime\"\nwanted_name = \"Spire\"", 5, "wanted_name ="},
		{"EK certificate", "[pki]", "[tpm]\nek_certificate = \"DIR/none.pem\"\n[pki]", 7, "no such file"},
		{"EK certificate NONE", "[pki]", "[tpm]\nek_certificate = \"NONE\"\n[pki]", 7, "not an absolute path"},
		{"EK intermediates", "[pki]", "[tpm]\nek_intermediates = \"inner.pem\"\n[pki]", 7, "not an absolute path"},
		{"no EK certificate, but intermediates", "[pki]", "[tpm]\nek_certificate = \"none\"\nek_intermediates = \"DIR/ca.pem\"\n[pki]", 8, "beside ek_certificate"},
		{"ek", "[pki]", "[tpm]\nek = \"rsa1024\"\n[pki]", 7, "ek ="},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, strings.Replace(spire, row.old, row.new, 1))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Line != row.line && row.line != 0 || !strings.Contains(e.Error(), row.fault) || e.Hint == "" {
				t.Errorf("line %d: %v (hint %q), want line %d with %q", e.Line, e, e.Hint, row.line, row.fault)
			}
		})
	}
}

func TestLoadTrustsOnlyWhatRootWrote(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "agent.toml")
	text := strings.ReplaceAll(spire, "DIR", dir)
	wantError := func(what string) {
		t.Helper()
		if _, err := Load(path); err == nil {
			t.Errorf("%s: loaded", what)
		} else if !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v does not say which file", what, err)
		}
	}
	wantError("absent")
	write(t, path, text, 0o666)
	wantError("world-writable file")
	write(t, path, text, 0o644)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	wantError("world-writable folder")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Errorf("good file: %v", err)
	}
	write(t, path, strings.Repeat("#", maxFile+1), 0o644)
	wantError("too large")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	wantError("a folder")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(spire))
	f.Add([]byte("[[certificate]]\n[certificate.service]\nstart=[]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse("agent.toml", text)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
	})
}
