// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/test/testca"
)

// TestKeylimeReadsWhatWeWrite: every option that we set, of every component, on
// stock files and on the seed's.
func TestKeylimeReadsWhatWeWrite(t *testing.T) {
	for _, mode := range modes {
		for _, seed := range []bool{false, true} {
			root, make, install := hosted(t)
			if seed {
				handed(t, root, "verifier", "enable_agent_mtls", "False", "tls_dir", "/etc/keylime/certs", "server_key", "verifier.key", "server_cert", "verifier.crt",
					"client_key", "verifier.key", "client_cert", "verifier.crt", "trusted_client_ca", "ca.crt", "trusted_server_ca", "ca.crt")
				handed(t, root, "registrar", "tls_dir", "/etc/keylime/certs", "server_key", "registrar.key", "server_cert", "registrar.crt", "trusted_client_ca", "ca.crt")
			}
			install(make(mode, Verifier, VerifierClient))
			install(make(mode, Registrar))
			install(make(mode, Tenant))
			for _, row := range []struct {
				component, role string
				want            any
			}{
				{"verifier", "server", expected("verifier", ClientsBundleFile)},
				{"verifier", "client", expected("verifier-client", BundleFile)},
				{"registrar", "server", expected("registrar", ClientsBundleFile)},
				{"tenant", "client", expected("tenant", BundleFile)},
			} {
				got, failure := ask(t, root, options(row.component, row.role))
				if diff := cmp.Diff(row.want, got); diff != "" || failure != "" {
					t.Errorf("%s (seed %t), %s as %s: %s %s", mode, seed, row.component, row.role, failure, diff)
				}
			}
			got, failure := ask(t, root, "[config.getboolean(c, 'enable_agent_mtls') for c in ('verifier', 'tenant')]")
			if diff := cmp.Diff([]any{true, true}, got); diff != "" || failure != "" {
				t.Errorf("%s: %s %s", mode, failure, diff)
			}
		}
	}
}

// TestSeedAsItWas: what the hand-made set-up means to Keylime, and so why we write
// something else.
func TestSeedAsItWas(t *testing.T) {
	root, _, _ := hosted(t)
	handed(t, root, "verifier", "tls_dir", "/etc/keylime/certs", "server_cert", "verifier.crt")
	if got, failure := ask(t, root, "config.get('verifier', 'server_cert')"); failure != "" || got != "verifier.crt   # Changed from: default" {
		t.Errorf("a remark behind a value: %v %s", got, failure)
	}
	for _, ca := range []string{"ca.crt", "/etc/keylime/certs/ca.crt"} {
		writeConfig(t, root, "registrar.conf", "[registrar]\ntls_dir = /etc/keylime/certs\ntrusted_client_ca = "+ca+"\n")
		if _, failure := ask(t, root, options("registrar", "server")); !strings.Contains(failure, "Failed to get list from config") {
			t.Errorf("trusted_client_ca = %s: %s", ca, failure)
		}
	}
	// Nobody sets the tenant's certificate: it has none of the CA's.
	if got, failure := ask(t, root, options("tenant", "client")); failure != "" || strings.Contains(cmp.Diff(nil, got), CertsDir) {
		t.Errorf("tenant: %v %s", got, failure)
	}
}

// TestRegistrarIsNoClient: there is no connection from the registrar to an agent,
// so nothing of ours sets up one.
func TestRegistrarIsNoClient(t *testing.T) {
	for _, mode := range modes {
		root, make, install := hosted(t)
		install(make(mode, Registrar))
		got, failure := ask(t, root, "[k for k, v in config.get_config('registrar').items('registrar') if 'client' in k and '/etc' in v or k.startswith('client_')]")
		if diff := cmp.Diff([]any{}, got); diff != "" || failure != "" {
			t.Errorf("%s: %s %s", mode, failure, diff)
		}
	}
}

// TestBackups: beside the main file one is harmless, in the folder it is read and
// wins, and we say so.
func TestBackups(t *testing.T) {
	root, make, install := hosted(t)
	install(make(InMain, Registrar))
	writeConfig(t, root, "registrar.conf.backup-20260209", "[registrar]\ntls_dir = /wrong\n")
	if got, failure := ask(t, root, options("registrar", "server")); !cmp.Equal(got, expected("registrar", ClientsBundleFile)) {
		t.Errorf("backups beside the main file: %v %s", got, failure)
	}
	if err := make(InMain, Registrar).CheckOverrides(root, nil); err != nil {
		t.Errorf("a backup beside the main file: %v", err)
	}
	for _, mode := range modes {
		for _, name := range []string{"60-site.conf.bak-20260210", "99.tmp", "verifier~"} {
			root, make, install := hosted(t)
			install(make(mode, Registrar))
			writeConfig(t, root, "registrar.conf.d/"+name, "[registrar]\nserver_cert = wrong.crt\n")
			checkLost(t, root, make(mode, Registrar), "server_cert", "wrong.crt", name, ErrOverridden)
			if found := make(mode, Registrar).Examine(root, nil); !names(found, name, "", ErrStray) {
				t.Errorf("%s: %v", name, found)
			}
		}
	}
}

// checkLost expects Keylime to go by another value than ours, and us to say where
// it comes from.
func checkLost(t *testing.T, root string, drop DropIn, key, value, where string, cause error, environment ...string) {
	t.Helper()
	got, failure := ask(t, root, "config.get('"+drop.Profile.Component+"', '"+key+"')", environment...)
	if got != value {
		t.Errorf("%s, %s: Keylime reads %v %s", drop.Mode, where, got, failure)
	}
	err := drop.CheckOverrides(root, environment)
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), where) {
		t.Errorf("%s, %s: %v", drop.Mode, where, err)
	}
}

// names reports that a finding is there, with its remedy.
func names(found []Finding, path, key string, cause error) bool {
	for _, f := range found {
		if strings.HasSuffix(f.Path, path) && f.Key == key && errors.Is(f.Err, cause) {
			return true
		}
	}
	return false
}

// TestKeysOfRoot: what the service's user cannot read stops it, so owner and mode
// are not a matter of taste.
func TestKeysOfRoot(t *testing.T) {
	root, _, _ := hosted(t)
	chain, key := testca.New(t, "book").Issue(t, testca.Want{Name: "verifier.test"})
	for name, text := range map[string][]byte{"v.crt": chain, "v.key": key} {
		must(t, os.WriteFile(filepath.Join(root, name), text, 0o600))
	}
	must(t, os.Chmod(filepath.Join(root, "v.crt"), 0o644))
	load := "str(web_util.generate_tls_context('" + root + "/v.crt', '" + root + "/v.key', [], verify_peer_cert=False))"
	if _, failure := ask(t, root, load); !strings.Contains(failure, "PermissionError") {
		t.Errorf("a key of root: %s", failure)
	}
	must(t, os.Chown(filepath.Join(root, "v.key"), somebody, somebody))
	if _, failure := ask(t, root, load); failure != "" {
		t.Errorf("a key of the service: %s", failure)
	}
	_, other := testca.New(t, "book").Issue(t, testca.Want{Name: "verifier.test"})
	must(t, os.WriteFile(filepath.Join(root, "v.key"), other, 0o600)) // of another call
	if _, failure := ask(t, root, load); !strings.Contains(failure, "KEY_VALUES_MISMATCH") {
		t.Errorf("a key of another call: %s", failure)
	}
}

// TestIntermediateOnly: a CA file that ends before the root verifies nobody. (Python
// 3.13 and later take it; the agent never does.)
func TestIntermediateOnly(t *testing.T) {
	root, _, _ := hosted(t)
	ca := testca.New(t, "book")
	chain, key := ca.Issue(t, testca.Want{Name: "verifier.test", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	for name, text := range map[string][]byte{"v.crt": chain, "v.key": key, "seed.crt": ca.IntermediatePEM, "ours.crt": ca.Bundle()} {
		must(t, os.WriteFile(filepath.Join(root, name), text, 0o644))
	}
	for bundle, want := range map[string]string{"seed.crt": "unable to get issuer certificate", "ours.crt": ""} {
		_, failure := ask(t, root, `shake("`+root+`", "`+root+`/`+bundle+`")`)
		if want == "" && failure != "" || want != "" && !strings.Contains(failure, want) {
			t.Errorf("%s: %q", bundle, failure)
		}
	}
}

// boot makes the owners and modes that Keylime's package makes at every boot.
func boot(t *testing.T, root string) {
	t.Helper()
	file, err := os.Open("../../test/systemd/testdata/keylime-tmpfiles.conf")
	must(t, err)
	defer file.Close()
	command := exec.CommandContext(t.Context(), "systemd-tmpfiles", "--create", "--root="+root, "-")
	command.Stdin = file
	if output, err := command.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, output) // what it cannot make is not asked about
	}
}

// TestNextBoot runs the tmpfiles.d that Keylime ships: a folder below /etc/keylime
// is closed to everybody, a link stays as it is.
func TestNextBoot(t *testing.T) {
	root, make, install := hosted(t)
	for name, text := range map[string]string{"passwd": "root:x:0:0::/:/bin/sh\nkeylime:x:4711:4711::/:/bin/sh\ntss:x:1:1::/:/bin/sh\n", "group": "root:x:0:\nkeylime:x:4711:\ntss:x:1:\n"} {
		must(t, os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644))
	}
	chain, key := testca.New(t, "book").Issue(t, testca.Want{Name: "verifier.test"})
	for _, folder := range []string{ConfigDir + "/byhand", "/srv/set"} {
		must(t, os.MkdirAll(filepath.Join(root, folder), 0o755))
		for name, text := range map[string][]byte{"v.crt": chain, "v.key": key} {
			must(t, os.WriteFile(filepath.Join(root, folder, name), text, 0o644))
		}
	}
	must(t, os.Symlink(root+"/srv/set", filepath.Join(root, CertsDir)))
	for _, mode := range modes {
		install(make(mode, Verifier))
		boot(t, root)
		for folder, want := range map[string]string{"byhand": "PermissionError", "certs": ""} {
			at := root + ConfigDir + "/" + folder
			_, failure := ask(t, root, "str(web_util.generate_tls_context('"+at+"/v.crt', '"+at+"/v.key', [], verify_peer_cert=False))")
			if want == "" && failure != "" || want != "" && !strings.Contains(failure, want) {
				t.Errorf("%s after a boot: %q", folder, failure)
			}
		}
		if got, failure := ask(t, root, options("verifier", "server")); !cmp.Equal(got, expected("verifier", ClientsBundleFile)) {
			t.Errorf("%s after a boot: %v %s", mode, got, failure)
		}
		if err := make(mode, Verifier).CheckOverrides(root, nil); err != nil {
			t.Errorf("%s after a boot: %v", mode, err)
		}
	}
}
