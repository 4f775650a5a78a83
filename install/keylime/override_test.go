// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLaterDropIns: the last file by name counts, for an edited main file every
// file of a folder does, the vendor's too.
func TestLaterDropIns(t *testing.T) {
	const wrong = "[verifier]\nserver_cert = wrong.crt\n"
	for _, row := range []struct {
		mode Mode
		name string
		lost bool
	}{
		{InDropIn, "verifier.conf.d/10-early.conf", false},
		{InDropIn, "verifier.conf.d/.hidden", false},
		{InDropIn, "../../usr/etc/keylime/verifier.conf.d/99-late.conf", false},
		{InDropIn, "verifier.conf.d/90-late.conf", true},
		{InDropIn, "verifier.conf.d/50-omen.conf.bak", true},
		{InMain, "verifier.conf.d/10-early.conf", true},
		{InMain, "verifier.conf.d/.hidden", true},
		{InMain, "../../usr/etc/keylime/verifier.conf.d/99-late.conf", true},
		{InMain, "../../usr/etc/keylime/verifier.conf", false},
	} {
		root, make, install := hosted(t)
		install(make(row.mode, Verifier))
		writeConfig(t, root, row.name, wrong)
		if row.lost {
			checkLost(t, root, make(row.mode, Verifier), "server_cert", "wrong.crt", filepath.Base(row.name)+": server_cert", ErrOverridden)
			continue
		}
		got, failure := ask(t, root, "config.get('verifier', 'server_cert')")
		if err := make(row.mode, Verifier).CheckOverrides(root, nil); got != "verifier.crt" || err != nil {
			t.Errorf("%s, %s: %v %s, %v", row.mode, row.name, got, failure, err)
		}
	}
}

// TestEnvironment beats every file.
func TestEnvironment(t *testing.T) {
	for _, mode := range modes {
		root, make, install := hosted(t)
		install(make(mode, Verifier))
		checkLost(t, root, make(mode, Verifier), "server_cert", "wrong.crt", "KEYLIME_VERIFIER_SERVER_CERT", ErrOverridden, "KEYLIME_VERIFIER_SERVER_CERT=wrong.crt")
		writeConfig(t, root, "elsewhere", "[verifier]\nserver_cert = wrong.crt\n")
		checkLost(t, root, make(mode, Verifier), "server_cert", "wrong.crt", "KEYLIME_VERIFIER_CONFIG", ErrOverridden, "KEYLIME_VERIFIER_CONFIG="+filepath.Join(root, ConfigDir, "elsewhere"))
		if err := make(mode, Verifier).CheckOverrides(root, []string{"KEYLIME_REGISTRAR_SERVER_CERT=x", "KEYLIME_VERIFIER_PORT=1"}); err != nil {
			t.Errorf("variables of others: %v", err)
		}
	}
}

// TestNoMainFile: without it Keylime reads no drop-in.
func TestNoMainFile(t *testing.T) {
	root, make, install := hosted(t)
	install(make(InDropIn, Registrar))
	must(t, os.Remove(filepath.Join(root, ConfigDir, "registrar.conf")))
	checkLost(t, root, make(InDropIn, Registrar), "server_cert", "", "registrar.conf", ErrNoMainFile)

	root, make, install = hosted(t)
	must(t, os.Remove(filepath.Join(root, ConfigDir, "registrar.conf")))
	writeConfig(t, root, "../../usr/etc/keylime/registrar.conf", "[registrar]\nport = 1\ntls_dir = default\n")
	for _, mode := range modes {
		install(make(mode, Registrar))
		got, failure := ask(t, root, "[config.get('registrar', 'port'), config.get('registrar', 'server_cert')]")
		if diff := cmp.Diff([]any{"1", "registrar.crt"}, got); diff != "" {
			t.Errorf("%s, the vendor's main file: %s %s", mode, failure, diff)
		}
	}
}

// TestFilesThatStopKeylime: it would not start again.
func TestFilesThatStopKeylime(t *testing.T) {
	for text, failure := range map[string]string{
		"[verifier]\nport = 1\nPort = 2\n": "DuplicateOptionError",
		"[verifier]\n[a]\n[verifier]\n":    "DuplicateSectionError",
		"port = 1\n":                       "MissingSectionHeaderError",
		"[verifier]\nnonsense\n":           "ParsingError",
		"\ufeff[verifier]\nport = 1\n":     "MissingSectionHeaderError",
		"[verifier]\n= 1\n":                "ParsingError",
	} {
		root, make, install := hosted(t)
		install(make(InDropIn, Verifier))
		writeConfig(t, root, "verifier.conf.d/10-site.conf", text)
		if _, got := ask(t, root, options("verifier", "server")); !strings.Contains(got, failure) {
			t.Errorf("%q: Keylime says %s", text, got)
		}
		if err := make(InDropIn, Verifier).CheckOverrides(root, nil); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "10-site.conf") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestUnknownSection is passed over in silence by Keylime, not by us.
func TestUnknownSection(t *testing.T) {
	for _, section := range []string{"Verifier", " verifier", "VERIFIER"} {
		root, make, install := hosted(t)
		install(make(InDropIn, Verifier))
		writeConfig(t, root, "verifier.conf.d/90-site.conf", "["+section+"]\nserver_cert = wrong.crt\n")
		got, failure := ask(t, root, "config.get('verifier', 'server_cert')")
		if got != "verifier.crt" {
			t.Errorf("%q: %v %s", section, got, failure)
		}
		drop := make(InDropIn, Verifier)
		if err := drop.CheckOverrides(root, nil); err != nil || !names(drop.Examine(root, nil), "90-site.conf", "", ErrIgnored) {
			t.Errorf("%q: %v, %v", section, err, drop.Examine(root, nil))
		}
	}
}

// TestUnreadable: Keylime goes on without what its user cannot read. Ours is made
// readable again, the main file and the folder must be, and others' are named.
func TestUnreadable(t *testing.T) {
	root, make, install := hosted(t)
	drop := make(InDropIn, Verifier)
	install(drop)
	conf := filepath.Join(root, ConfigDir, "verifier.conf.d")
	ours := filepath.Join(conf, DropInFile)
	must(t, os.Chown(ours, 0, 0))
	must(t, os.Chmod(ours, 0o400))
	if got, failure := ask(t, root, "config.get('verifier', 'server_cert')"); got != "default" || failure != "" {
		t.Errorf("our drop-in of root: %v %s", got, failure)
	}
	install(drop)
	if got, failure := ask(t, root, options("verifier", "server")); !cmp.Equal(got, expected("verifier", ClientsBundleFile)) {
		t.Errorf("mended: %v %s", got, failure)
	}

	writeConfig(t, root, "verifier.conf.d/10-site.conf", "[verifier]\nport = 1\n")
	must(t, os.Chmod(filepath.Join(conf, "10-site.conf"), 0o600))
	if got, failure := ask(t, root, "config.get('verifier', 'port')"); got != "8881" || failure != "" {
		t.Errorf("a drop-in of root: %v %s", got, failure)
	}
	if err := drop.CheckOverrides(root, nil); err != nil || !names(drop.Examine(root, nil), "10-site.conf", "", ErrIgnored) {
		t.Errorf("others' drop-in: %v", err)
	}

	main := filepath.Join(root, ConfigDir, "verifier.conf")
	must(t, os.Chmod(main, 0o600))
	checkLost(t, root, drop, "server_cert", "", "verifier.conf", ErrIgnored)
	must(t, os.Chmod(main, 0o644))
	must(t, os.Chown(conf, 0, 0))
	must(t, os.Chmod(conf, 0o700))
	if _, failure := ask(t, root, options("verifier", "server")); !strings.Contains(failure, "PermissionError") {
		t.Errorf("a folder of root: %s", failure)
	}
	if err := drop.CheckOverrides(root, nil); !errors.Is(err, ErrIgnored) || !strings.Contains(err.Error(), "verifier.conf.d") {
		t.Errorf("a folder of root: %v", err)
	}
}

// TestOldAgentFile is read by no agent.
func TestOldAgentFile(t *testing.T) {
	for _, mode := range modes {
		root, make, install := hosted(t)
		writeConfig(t, root, "keylime-agent.conf", "[agent]\nserver_cert = \"old\"\nport = 1\n")
		drop := make(mode, Agent)
		install(drop)
		settings, err := drop.Profile.Load(root)
		must(t, err)
		if settings["port"] != "9002" || settings["server_cert"] != CertsDir+"/agent.crt" || settings["trusted_client_ca"] != CertsDir+"/"+ClientsBundleFile {
			t.Errorf("%s: %v", mode, settings)
		}
		if err := drop.CheckOverrides(root, nil); err != nil || !names(drop.Examine(root, nil), "keylime-agent.conf", "", ErrIgnored) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// TestAgentOverrides: its folder's files by name, hidden ones too; the vendor's
// come before the main file; a file that is no TOML stops it.
func TestAgentOverrides(t *testing.T) {
	for _, row := range []struct {
		mode       Mode
		name, text string
		cause      error
	}{
		{InDropIn, "agent.conf.d/10-site.conf", "[agent]\nserver_cert = \"x\"\n", nil},
		{InDropIn, "agent.conf.d/99.bak", "[agent]\nserver_cert = \"x\"\n", ErrOverridden},
		{InMain, "agent.conf.d/.hidden", "[agent]\nserver_cert = \"x\"\n", ErrOverridden},
		{InMain, "../../usr/etc/keylime/agent.conf.d/99-site.conf", "[agent]\nserver_cert = \"x\"\n", nil},
		{InDropIn, "agent.conf.d/10-site.conf", "[agent]\nport = 1\nport = 2\n", ErrMalformed},
		{InDropIn, "agent.conf.d/10-site.conf", "[agent]\nport = 1 ; remark\n", ErrMalformed},
	} {
		root, make, install := hosted(t)
		install(make(row.mode, Agent))
		writeConfig(t, root, row.name, row.text)
		if err := make(row.mode, Agent).CheckOverrides(root, nil); !errors.Is(err, row.cause) {
			t.Errorf("%s, %s: %v", row.mode, row.name, err)
		}
	}
	root, make, _ := hosted(t)
	if err := make(InDropIn, Agent).CheckOverrides(root, []string{"KEYLIME_AGENT_SERVER_CERT=x"}); !errors.Is(err, ErrOverridden) {
		t.Errorf("environment: %v", err)
	}
}

// CheckOverrides returns every finding of Examine that stops, joined.
func (d DropIn) CheckOverrides(root string, environment []string) error {
	return Stopping(d.Examine(root, environment))
}
