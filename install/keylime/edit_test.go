// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

const handMade = `# Backup created: /etc/keylime/verifier.conf.backup-20260210
[verifier]
# the port
port = 8881
enable_agent_mtls = False            # Changed from: True
tls_dir: generate
  # inside
server_key = default
   and more

; behind
server_cert = default

[revocations]
tls_dir = other
`

// in returns the drop-in of some profiles in a mode.
func in(mode Mode, profiles ...string) DropIn {
	all := uses(profiles...)
	for at := range all {
		all[at].Mode = mode
	}
	return DropIns(all)[0]
}

// tree is every file and folder below ConfigDir with mode and content.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	base := filepath.Join(root, ConfigDir)
	err := filepath.WalkDir(base, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, base)
		found[name] = info.Mode().String()
		if entry.Type().IsRegular() {
			text, err := os.ReadFile(path)
			found[name] += "\n" + string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func same(t *testing.T, root string, want map[string]string, what string) {
	t.Helper()
	if diff := cmp.Diff(want, tree(t, root)); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEditChangesOurKeysOnly(t *testing.T) {
	root, dir := config(t)
	writeConfig(t, root, "verifier.conf", handMade)
	must(t, os.Chmod(filepath.Join(root, ConfigDir, "verifier.conf"), 0o640))
	_, err := write(root, dir, in(InMain, Verifier))
	must(t, err)
	want := map[string]string{
		"":                               "drwxr-xr-x",
		"/verifier.conf.backup-20260210": "-rw-r-----\n" + handMade,
		"/verifier.conf": "-rw-r-----\n" + `# Backup created: /etc/keylime/verifier.conf.backup-20260210
[verifier]
# the port
port = 8881
enable_agent_mtls = True
tls_dir = /etc/keylime/certs
  # inside
server_key = verifier.key

; behind
server_cert = verifier.crt
trusted_client_ca = ['` + ClientsBundleFile + `']

[revocations]
tls_dir = other
`,
	}
	got := tree(t, root)
	delete(got, "/.verifier.conf.omen")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// grounds are ways in which a main file can be found.
func grounds() map[string]func(t *testing.T, root string) {
	return map[string]func(t *testing.T, root string){
		"by hand":        func(t *testing.T, root string) { writeConfig(t, root, "verifier.conf", handMade) },
		"no end of line": func(t *testing.T, root string) { writeConfig(t, root, "verifier.conf", strings.TrimSpace(handMade)) },
		"Windows": func(t *testing.T, root string) {
			writeConfig(t, root, "verifier.conf", strings.ReplaceAll(handMade, "\n", "\r\n"))
		},
		"no such section": func(t *testing.T, root string) { writeConfig(t, root, "verifier.conf", "[other]\na = b") },
		"empty":           func(t *testing.T, root string) { writeConfig(t, root, "verifier.conf", "") },
		"indented": func(t *testing.T, root string) {
			writeConfig(t, root, "verifier.conf", "[verifier]\n  port = 1\n  tls_dir = x\n  ip = y\n")
		},
		"vendor's only": func(t *testing.T, root string) { writeConfig(t, root, "../../usr/etc/keylime/verifier.conf", handMade) },
		"a backup of theirs": func(t *testing.T, root string) {
			writeConfig(t, root, "verifier.conf", handMade)
			writeConfig(t, root, "verifier.conf.backup-20260210", "theirs")
		},
		"with a folder": func(t *testing.T, root string) {
			writeConfig(t, root, "verifier.conf", handMade)
			writeConfig(t, root, "verifier.conf.d/10-site.conf", "[verifier]\nport = 1\n")
		},
	}
}

// TestEditAndBack goes from everywhere to an edited main file and back, on every
// way there is.
func TestEditAndBack(t *testing.T) {
	for name, prepare := range grounds() {
		t.Run(name, func(t *testing.T) {
			root, dir := config(t)
			prepare(t, root)
			before := tree(t, root)
			profile, _ := Find(Verifier)

			first, err := write(root, dir, in(InMain, Verifier))
			must(t, err)
			if !first.Changed {
				t.Error("nothing changed")
			}
			edited := tree(t, root)
			again, err := write(root, dir, in(InMain, Verifier))
			must(t, err)
			if again.Changed || len(again.Places) > 0 {
				t.Errorf("the second time: %+v", again)
			}
			reread(t, &first)
			must(t, first.Undo(dir))
			same(t, root, before, "undone")
			must(t, first.Undo(dir))
			same(t, root, before, "undone twice")
			must(t, first.Apply(dir))
			same(t, root, edited, "done again")

			other, err := write(root, dir, in(InDropIn, Verifier))
			must(t, err)
			if content, err := os.ReadFile(filepath.Join(root, ConfigDir, "verifier.conf.d", DropInFile)); err != nil || !IsOurs(content) {
				t.Errorf("no drop-in: %v", err)
			}
			must(t, other.Undo(dir))
			same(t, root, edited, "back from drop-in by undoing")
			_, err = write(root, dir, in(InDropIn, Verifier))
			must(t, err)
			_, err = write(root, dir, in(InMain, Verifier, VerifierClient))
			must(t, err)
			_, err = write(root, dir, in(InMain, Verifier))
			must(t, err)
			same(t, root, edited, "back from drop-in, with a client for a while")

			last, err := Leave(dir, profile)
			must(t, err)
			must(t, last.Apply(dir))
			same(t, root, before, "left")
		})
	}
}

// reread sends what is to be undone through its written form.
func reread(t *testing.T, w *Written) {
	t.Helper()
	text, err := json.Marshal(w)
	must(t, err)
	*w = Written{}
	must(t, json.Unmarshal(text, w))
}

// TestEveryStepCanBeUndone stops after each place, as a crash would.
func TestEveryStepCanBeUndone(t *testing.T) {
	root, dir := config(t)
	writeConfig(t, root, "verifier.conf", handMade)
	profile, _ := Find(Verifier)
	for _, step := range []func() (Written, error){
		func() (Written, error) { return in(InDropIn, Verifier).Prepare(root, dir, day) },
		func() (Written, error) { return in(InMain, Verifier).Prepare(root, dir, day) },
		func() (Written, error) { return in(InDropIn, Verifier).Prepare(root, dir, day) },
		func() (Written, error) { return in(InMain, Verifier, VerifierClient).Prepare(root, dir, day) },
		func() (Written, error) { return Leave(dir, profile) },
	} {
		before := tree(t, root)
		w, prepareErr := step()
		must(t, prepareErr)
		same(t, root, before, "prepared")
		for stop := range w.Places {
			must(t, Written{Places: w.Places[:stop+1]}.Apply(dir))
			must(t, w.Undo(dir))
			same(t, root, before, "undone in the middle")
		}
		must(t, w.Apply(dir))
	}
}

// TestOthersChangesStay: what people changed after us stays when we go.
func TestOthersChangesStay(t *testing.T) {
	root, dir := config(t)
	path := filepath.Join(root, ConfigDir, "verifier.conf")
	writeConfig(t, root, "verifier.conf", handMade)
	_, err := write(root, dir, in(InMain, Verifier))
	must(t, err)
	text, err := os.ReadFile(path)
	must(t, err)
	writeConfig(t, root, "verifier.conf", strings.Replace(string(text), "port = 8881", "port = 9999", 1))

	again, err := write(root, dir, in(InMain, Verifier))
	must(t, err)
	if again.Changed {
		t.Error("a change of another setting is a change for us")
	}
	writeConfig(t, root, "verifier.conf", strings.Replace(string(text), "server_cert = verifier.crt", "server_cert = theirs.crt", 1))
	again, err = write(root, dir, in(InMain, Verifier))
	must(t, err)
	if got, err := os.ReadFile(path); err != nil || !again.Changed || string(got) != string(text) {
		t.Errorf("our setting is not ours again: %s, %v", got, err)
	}
	writeConfig(t, root, "verifier.conf", strings.Replace(string(text), "port = 8881", "port = 9999", 1))
	profile, _ := Find(Verifier)
	last, err := Leave(dir, profile)
	must(t, err)
	must(t, last.Apply(dir))
	got, err := os.ReadFile(path)
	if want := strings.Replace(handMade, "port = 8881", "port = 9999", 1); err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, string(got)))
	}
	if backup, err := os.ReadFile(path + ".backup-20260210"); err != nil || string(backup) != handMade {
		t.Errorf("the backup of a file that others changed: %v", err)
	}
}

func TestNotEditable(t *testing.T) {
	for name, c := range map[string]struct{ profile, text, says string }{
		"twice a key":        {Verifier, "[verifier]\nport = 1\nport = 2\n", "port stands twice"},
		"twice a section":    {Verifier, "[verifier]\n[other]\n[verifier]\n", "stands twice"},
		"no section":         {Verifier, "port = 1\n", "before the first section"},
		"another spelling":   {Verifier, "[Verifier]\nport = 1\n", "[Verifier] is not [verifier]"},
		"spaces":             {Verifier, "[ verifier ]\nport = 1\n", "[ verifier ] is not [verifier]"},
		"no setting":         {Verifier, "[verifier]\nnonsense\n", "neither"},
		"TOML is broken":     {Agent, "[agent]\nport = \n", "expected value"},
		"TOML over lines":    {Agent, "[agent]\nserver_key = \"\"\"\nx\"\"\"\n", "form is not understood"},
		"TOML key by dots":   {Agent, "agent.server_key = \"x\"\n", "form is not understood"},
		"TOML inline":        {Agent, "agent = { server_key = \"x\" }\n", "form is not understood"},
		"header in a string": {Agent, "a = \"\"\"\n[agent]\n\"\"\"\n", "form is not understood"},
	} {
		root, dir := config(t)
		component := in(InMain, c.profile).Profile.Component
		writeConfig(t, root, component+".conf", c.text)
		before := tree(t, root)
		_, err := write(root, dir, in(InMain, c.profile))
		if !errors.Is(err, ErrNotEditable) || !strings.Contains(err.Error(), c.says) || remedy.Of(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		same(t, root, before, name)
	}
}

func TestMainFileIsALink(t *testing.T) {
	root, dir := config(t)
	writeConfig(t, root, "real.conf", handMade)
	must(t, os.Symlink("real.conf", filepath.Join(root, ConfigDir, "verifier.conf")))
	if _, err := write(root, dir, in(InMain, Verifier)); !errors.Is(err, ErrNotEditable) || !errors.Is(err, beneath.ErrNotPlain) {
		t.Errorf("edited: %v", err)
	}
	if _, err := write(root, dir, in(InDropIn, Verifier)); err != nil {
		t.Errorf("a drop-in beside it: %v", err)
	}
}

func TestBackupIsGone(t *testing.T) {
	root, dir := config(t)
	writeConfig(t, root, "verifier.conf", handMade)
	_, err := write(root, dir, in(InMain, Verifier))
	must(t, err)
	must(t, os.Remove(filepath.Join(root, ConfigDir, "verifier.conf.backup-20260210")))
	profile, _ := Find(Verifier)
	if _, err := Leave(dir, profile); !errors.Is(err, ErrNoWayBack) || !strings.Contains(remedy.Of(err), "server_cert") {
		t.Errorf("left: %v", err)
	}
	if _, err := write(root, dir, in(InDropIn, Verifier)); !errors.Is(err, ErrNoWayBack) {
		t.Errorf("to a drop-in: %v", err)
	}
	if w, err := write(root, dir, in(InMain, Verifier)); err != nil || w.Changed {
		t.Errorf("renewals end: %+v, %v", w, err)
	}
}

// TestRecordOfSomebodyElse: the folder belongs to Keylime's user, who could write
// any record.
func TestRecordOfSomebodyElse(t *testing.T) {
	for _, text := range []string{"{", `{"edit":{"backup":"../passwd"}}`, `{"edit":{"backup":"registrar.conf"}}`, `{"edit":{"backup":"verifier.conf.backup-/../../shadow"}}`, strings.Repeat(" ", maxRecord+1)} {
		root, dir := config(t)
		writeConfig(t, root, "verifier.conf", handMade)
		writeConfig(t, root, ".verifier.conf.omen", text)
		before := tree(t, root)
		if _, err := write(root, dir, in(InMain, Verifier)); err == nil || remedy.Of(err) == "" {
			t.Errorf("%.20q: %v", text, err)
		}
		same(t, root, before, text[:1])
	}
}

func TestModes(t *testing.T) {
	two := uses(Verifier, VerifierClient, Registrar)
	two[0].Mode, two[2].Mode = InMain, InMain
	if err := CheckModes(two); !errors.Is(err, ErrMixedModes) {
		t.Errorf("mixed: %v", err)
	}
	two[1].Mode, two[2].Mode = InMain, InDropIn
	if err := CheckModes(two); err != nil {
		t.Errorf("two components, two modes: %v", err)
	}
	two[2].Mode = "append"
	if err := CheckModes(two); err == nil || remedy.Of(err) == "" {
		t.Errorf("append: %v", err)
	}
}

// FuzzSet: whatever the file, all but our settings stays, and it comes back.
func FuzzSet(f *testing.F) {
	f.Add(handMade, false)
	f.Add("[agent]\nserver_key = 'x' # y\n", true)
	f.Add("[verifier]\n  a = b\n c\nserver_key:\n", false)
	verifier, agent := in(InMain, Verifier, VerifierClient), in(InMain, Agent)
	f.Fuzz(func(t *testing.T, text string, isTOML bool) {
		drop := verifier
		if isTOML {
			drop = agent
		}
		edited, err := drop.Profile.set("x", text, drop.Settings)
		if err != nil {
			return
		}
		again, err := drop.Profile.set("x", edited, drop.Settings)
		if err != nil || again != edited {
			t.Errorf("not idempotent: %q, %v", again, err)
		}
		for line := range strings.Lines(edited) {
			if strings.Contains(line, "/etc/keylime/certs") && strings.Contains(line, "#") && !isTOML {
				t.Errorf("a remark behind a value: %q", line)
			}
		}
	})
}
