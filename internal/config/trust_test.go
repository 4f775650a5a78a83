// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nobody is a user that is neither root nor whoever runs the tests.
const nobody = 65534

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whoever writes the CA or the anchor decides which server and which certificate
// is right; whoever reads an authorisation value owns the TPM.
func TestFilesThatDecideAreOfRootToo(t *testing.T) {
	tpm := "[tpm]\nowner_auth_file = \"DIR/owner.auth\"\n[keylime]\nclient_ca = \"DIR/clients.pem\"\nserver_ca = \"DIR/servers.pem\"\n[pki]"
	for name, bend := range map[string]func(t *testing.T, dir string){
		"CA that all may write":             func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/ca.pem", 0o666)) },
		"anchor that a group writes":        func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/root.pem", 0o664)) },
		"clients' CA that all may write":    func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/clients.pem", 0o666)) },
		"servers' CA of another user":       func(t *testing.T, dir string) { must(t, os.Chown(dir+"/servers.pem", nobody, nobody)) },
		"anchor of another user":            func(t *testing.T, dir string) { must(t, os.Chown(dir+"/root.pem", nobody, nobody)) },
		"anchor in another's folder":        func(t *testing.T, dir string) { movedTo(t, dir, 0o755) },
		"anchor in another's sticky folder": func(t *testing.T, dir string) { movedTo(t, dir, 0o755|os.ModeSticky) },
		"authorisation that all may read":   func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/owner.auth", 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			write(t, dir+"/owner.auth", "x", 0o600)
			write(t, dir+"/clients.pem", "x", 0o644)
			write(t, dir+"/servers.pem", "x", 0o644)
			path := filepath.Join(dir, "agent.toml")
			write(t, path, strings.ReplaceAll(strings.Replace(spire, "[pki]", tpm, 1), "DIR", dir), 0o644)
			if _, err := Load(path); err != nil {
				t.Fatalf("before: %v", err)
			}
			bend(t, dir)
			_, err := Load(path)
			var e *Error
			if !errors.As(err, &e) || e.Line == 0 || !strings.Contains(e.Hint, "chmod") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// movedTo puts the anchor behind a link, into a folder of another user.
func movedTo(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	must(t, os.Mkdir(dir+"/theirs", 0o755))
	must(t, os.Rename(dir+"/root.pem", dir+"/theirs/root.pem"))
	must(t, os.Symlink("theirs/root.pem", dir+"/root.pem"))
	must(t, os.Chown(dir+"/theirs", nobody, nobody))
	must(t, os.Chmod(dir+"/theirs", mode))
}

// A link is followed once: who owns a folder in the middle cannot change its
// mind between the check and the use.
func TestCheckedFilesAreNamedWithoutLinks(t *testing.T) {
	dir := folder(t)
	must(t, os.Rename(dir+"/root.pem", dir+"/real.pem"))
	must(t, os.Symlink("real.pem", dir+"/root.pem"))
	path := filepath.Join(dir, "agent.toml")
	write(t, path, strings.ReplaceAll(spire, "DIR", dir), 0o644)
	c, err := Load(path)
	if err != nil || c.PKI.Anchor != dir+"/real.pem" || c.Certificates[0].Anchor != dir+"/real.pem" {
		t.Errorf("%+v, %v", c, err)
	}
}
