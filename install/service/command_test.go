// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/remedy"
)

func TestMarkerOf(t *testing.T) {
	for want, start := range map[string][]string{
		"keylime_verifier": {"/usr/bin/keylime_verifier"},
		"keylime_agent":    {"/usr/bin/env", "RUST_LOG=info", "/opt/keylime_agent", "-v"},
		"standin.py":       {"/usr/bin/python3.11", "-u", "/opt/standin.py", "--port", "9002"},
	} {
		if got, err := markerOf(start); got != want || err != nil {
			t.Errorf("%q: got %q, %v; want %q", start, got, err, want)
		}
	}
	if _, err := markerOf([]string{"/bin/sh", "-c"}); err == nil {
		t.Error("a shell alone names a program")
	}
}

func TestCommandsThatCannotBeRight(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	writeFile(t, plain, "text", 0o644)
	for _, start := range [][]string{{"keylime_verifier"}, {"/nonexistent/keylime_verifier"}, {plain}, {t.TempDir()}} {
		if _, err := newProcess(Spec{Root: "/", Start: start}); err == nil {
			t.Errorf("%q is accepted", start)
		}
	}
}

func TestUnknownUser(t *testing.T) {
	root := t.TempDir()
	writeUsers(t, root)
	_, err := newProcess(Spec{Root: root, Start: []string{"/usr/bin/sleep"}, User: "nosuchuser"})
	var unknown account.UnknownError
	if !errors.As(err, &unknown) || unknown.Name != "nosuchuser" {
		t.Errorf("got %v", err)
	}
}

func TestNoWayToRestart(t *testing.T) {
	_, err := Find(t.Context(), Spec{Root: t.TempDir(), Program: "keylime_verifier", Units: []string{"keylime_verifier.service"}})
	if !errors.Is(err, ErrNotFound) || remedy.Of(err) == "" {
		t.Errorf("got %v, hint %q", err, remedy.Of(err))
	}
}

func TestLogThatIsALink(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/shadow", "secret\n", 0o600)
	if err := os.Symlink(dir+"/shadow", dir+"/log"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/log", dir, "/dev/null"} {
		if log, err := openLog(path); err == nil {
			t.Errorf("%s: opened %s", path, log.Name())
		}
	}
}

func TestStatWithHostileName(t *testing.T) {
	text := []byte("12 (a) R 1 ) S 7 8 9 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 5555 0 0")
	got, err := parseStat(12, text)
	if want := (process{pid: 12, parent: 7, session: 9, state: 'S', start: 5555}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, short := range []string{"", "12", "12 (x) S 1 2"} {
		if _, err := parseStat(12, []byte(short)); err == nil {
			t.Errorf("%q is accepted", short)
		}
	}
}

func writeUsers(t *testing.T, root string) {
	t.Helper()
	writeFile(t, root+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nkeylime:x:4711:4712::/var/lib/keylime:/bin/false\n", 0o644)
	writeFile(t, root+"/etc/group", "root:x:0:\nkeylime:x:4712:\ntss:x:4713:\nmore:x:4714:keylime\n", 0o644)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writePID(t *testing.T, s *Process, pid int, mode os.FileMode) {
	t.Helper()
	writeFile(t, s.spec.PIDFile, fmt.Sprintln(pid), mode)
}

func age(t *testing.T, path string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}
