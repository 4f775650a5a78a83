// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/beneath"
)

func uses(profiles ...string) []Use {
	names := map[string]string{Verifier: "verifier", VerifierClient: "verifier-client", Registrar: "registrar", Tenant: "tenant", Agent: "agent"}
	var result []Use
	for _, name := range profiles {
		profile, _ := Find(name)
		result = append(result, Use{Profile: profile, Certificate: names[name], UID: os.Getuid(), GID: os.Getgid()})
	}
	return result
}

const head = "# Written by omen-agent at every installation; changes here are lost.\n"

func TestDropIns(t *testing.T) {
	want := map[string]string{
		"registrar": head + `[registrar]
tls_dir = /etc/keylime/certs
server_key = registrar.key
server_cert = registrar.crt
trusted_client_ca = ['clients-ca.crt']
`,
		"verifier": head + `[verifier]
enable_agent_mtls = True
tls_dir = /etc/keylime/certs
server_key = verifier.key
server_cert = verifier.crt
trusted_client_ca = ['clients-ca.crt']
client_key = verifier-client.key
client_cert = verifier-client.crt
trusted_server_ca = ['ca.crt']
`,
		"tenant": head + `[tenant]
enable_agent_mtls = True
tls_dir = /etc/keylime/certs
client_key = tenant.key
client_cert = tenant.crt
trusted_server_ca = ['ca.crt']
`,
		"agent": head + `[agent]
enable_agent_mtls = true
server_key = "/etc/keylime/certs/agent.key"
server_cert = "/etc/keylime/certs/agent.crt"
trusted_client_ca = "/etc/keylime/certs/clients-ca.crt"
`,
	}
	got := map[string]string{}
	for _, drop := range DropIns(uses(Tenant, VerifierClient, Agent, Verifier, Registrar)) {
		got[drop.Profile.Component] = string(drop.Content())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var agent struct{ Agent map[string]any }
	if _, err := toml.Decode(got["agent"], &agent); err != nil || agent.Agent["enable_agent_mtls"] != true {
		t.Errorf("the agent's drop-in as TOML: %v, %v", agent, err)
	}
}

func TestAbsentProfilesAreNotConfigured(t *testing.T) {
	drops := DropIns(uses(Verifier))
	if len(drops) != 1 {
		t.Fatalf("%d drop-ins", len(drops))
	}
	for _, setting := range drops[0].Settings {
		if setting.Key == "client_cert" || setting.Key == "trusted_server_ca" {
			t.Errorf("%s is set without a client certificate", setting.Key)
		}
	}
}

func config(t *testing.T) (string, *beneath.Dir) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, ConfigDir), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := beneath.Open(root, ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return root, dir
}

var day = time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC)

// write does what an installation does.
func write(root string, dir *beneath.Dir, drop DropIn) (Written, error) {
	written, err := drop.Prepare(root, dir, day)
	if err != nil {
		return written, err
	}
	return written, written.Apply(dir)
}

func TestWriteAndUndo(t *testing.T) {
	root, dir := config(t)
	drop := DropIns(uses(Registrar))[0]
	path := filepath.Join(root, ConfigDir, "registrar.conf.d", DropInFile)

	written, err := write(root, dir, drop)
	if err != nil || !written.Changed {
		t.Fatalf("%+v, %v", written, err)
	}
	again, err := write(root, dir, drop)
	if err != nil || again.Changed {
		t.Fatalf("the second time: %+v, %v", again, err)
	}
	if err := again.Undo(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != string(drop.Content()) {
		t.Fatalf("undoing no change: %q, %v", text, err)
	}
	if err := written.Undo(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder we made is left: %v", err)
	}

	writeConfig(t, root, "registrar.conf.d/"+DropInFile, "[registrar]\nhand = made\n")
	written, err = write(root, dir, drop)
	if err != nil {
		t.Fatal(err)
	}
	if err := written.Undo(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "[registrar]\nhand = made\n" {
		t.Errorf("not as before: %q, %v", text, err)
	}
	if left, err := filepath.Glob(filepath.Join(root, ConfigDir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func writeConfig(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, ConfigDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOverrides(t *testing.T) {
	root, _ := config(t)
	verifier, agent := DropIns(uses(Verifier))[0], DropIns(uses(Agent))[0]
	for name, text := range map[string]string{
		"verifier.conf":                 "[verifier]\nport = 8881\n",
		"verifier.conf.d/10-early.conf": "[verifier]\nserver_cert = early.crt\n",
		"verifier.conf.d/90-late.conf":  "[verifier]\nport = 9\n# server_cert = x\n[other]\nserver_cert = y\n",
		"agent.conf.d/90-late.conf":     "[agent]\nport = 9003\n",
	} {
		writeConfig(t, root, name, text)
	}
	if err := errors.Join(verifier.CheckOverrides(root, []string{"PATH=/bin", "KEYLIME_VERIFIER_PORT=1"}), agent.CheckOverrides(root, nil)); err != nil {
		t.Errorf("nothing of ours is overridden: %v", err)
	}
	for _, environment := range []string{"KEYLIME_VERIFIER_SERVER_CERT=x", "KEYLIME_VERIFIER_CONFIG=/x", "KEYLIME_VERIFIER_ENABLE_AGENT_MTLS=False"} {
		if err := verifier.CheckOverrides(root, []string{environment}); !errors.Is(err, ErrOverridden) {
			t.Errorf("%s: %v", environment, err)
		}
	}
	writeConfig(t, root, "agent.conf.d/99.bak", "[agent]\ntrusted_client_ca = \"x\"\n")
	writeConfig(t, root, "verifier.conf.d/50-omen.conf.old", " # x\n[verifier]\nTLS_Dir: /x\n")
	for _, drop := range []DropIn{verifier, agent} {
		if err := drop.CheckOverrides(root, nil); !errors.Is(err, ErrOverridden) {
			t.Errorf("%s: %v", drop.Profile.Component, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	root, _ := config(t)
	writeConfig(t, root, "../../usr/etc/keylime/verifier.conf", "[verifier]\nip = 192.0.2.9\nport = 1111\n")
	writeConfig(t, root, "registrar.conf", "[registrar]\nip = \"192.0.2.1\"\nport = 8890\ntls_port = 8891\n")
	writeConfig(t, root, "registrar.conf.d/site.conf", "[registrar]\ntls_port = 9991\n")
	writeConfig(t, root, "agent.conf", "[agent]\nip = \"192.0.2.2\"\nport = 9002\n")
	writeConfig(t, root, "agent.conf.d/site.conf", "[agent]\nport = \"9003\"\n")
	for name, want := range map[string]struct {
		ip   string
		port int
	}{Registrar: {"192.0.2.1", 9991}, Verifier: {"192.0.2.9", 1111}, Agent: {"192.0.2.2", 9003}} {
		profile, _ := Find(name)
		settings, err := profile.Load(root)
		if err != nil {
			t.Fatal(err)
		}
		if ip, port, err := profile.Endpoint(settings); ip != want.ip || port != want.port || err != nil {
			t.Errorf("%s: %s %d, %v; want %v", name, ip, port, err, want)
		}
	}
	verifier, _ := Find(Verifier)
	if err := verifier.CheckMainFile(root); err != nil {
		t.Errorf("main file in /usr/etc: %v", err)
	}
	writeConfig(t, root, "verifier.conf", "[verifier]\nport = 8881   # Changed from: default\n")
	settings, err := verifier.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := verifier.Endpoint(settings); err == nil {
		t.Error("a remark behind a port is part of it")
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"0.2.9": true, "0.2.10": true, "0.3.0": true, "1.0.0": true, "2:0.2.9-1": true, "0.2.9-1.fc43": true, "v0.2.9": true, "0.2.9+git\n": true,
		"0.2.8": false, "0.2.8-99": false, "0.1.22": false, "0.2.9~rc1-1": false, "0.2.9-rc1": false,
	} {
		if got, err := UsesEC(version); got != want || err != nil {
			t.Errorf("%q: %v, %v", version, got, err)
		}
	}
	for _, version := range []string{"", "latest", "0.2", "-0.2.9", "0.2.x", "0.2.99999999999999999999"} {
		if got, err := UsesEC(version); got || err == nil {
			t.Errorf("%q: %v, %v", version, got, err)
		}
	}
}

// TestPackageVersion asks this system's own package database. Whatever owns
// dpkg-query, it is no Rust agent; a path with a pattern is not asked about.
func TestPackageVersion(t *testing.T) {
	for _, path := range []string{"/usr/bin/dpkg-query", "/usr/bin/*", "relative", "/nonexistent"} {
		if version, err := PackageVersion(t.Context(), "/", path); err == nil {
			t.Errorf("%s: %s", path, version)
		}
	}
}

// TestPackageOfTheRustAgent makes a package database with such a package in it.
func TestPackageOfTheRustAgent(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"status": "Package: rust-keylime\nStatus: install ok installed\nMaintainer: x <x@example.com>\nArchitecture: all\nVersion: 0.2.9-1\nDescription: x\n\n" +
			"Package: keylime-agent\nStatus: install ok installed\nMaintainer: x <x@example.com>\nArchitecture: all\nVersion: 6.6.0-1\nDescription: x\n\n",
		"info/rust-keylime.list":  "/.\n/usr\n/usr/bin\n/usr/bin/keylime_agent\n",
		"info/keylime-agent.list": "/.\n/usr\n/usr/bin\n/usr/bin/keylime_python_agent\n",
		"info/format":             "1\n",
	} {
		path := filepath.Join(root, "var/lib/dpkg", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if version, err := PackageVersion(t.Context(), root, "/usr/bin/keylime_agent"); version != "0.2.9-1" || err != nil {
		t.Errorf("got %q, %v", version, err)
	}
	if version, err := PackageVersion(t.Context(), root, "/usr/bin/keylime_python_agent"); err == nil {
		t.Errorf("the Python agent counts as %s", version)
	}
}

func FuzzParseINI(f *testing.F) {
	f.Add("[verifier]\nserver_cert = x\n y\n; z\n=\n:")
	f.Add(" \n[\n]\n[]\na=b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, section := range parseINI(text) {
			for key := range section {
				if key == "" {
					t.Error("empty key")
				}
			}
		}
	})
}
