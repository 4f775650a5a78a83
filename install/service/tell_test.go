// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/install/account"
)

// script makes an executable file.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	writeFile(t, path, "#!/bin/sh\n"+text, 0o755)
	return path
}

func TestReloadsThatCannotBe(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	writeFile(t, plain, "text", 0o644)
	for name, c := range map[string]struct {
		program string
		how     Reload
	}{
		"Keylime by a signal":  {"keylime_verifier", Reload{Signal: "HUP"}},
		"Keylime by a command": {"keylime_verifier.service", Reload{Command: []string{"/bin/true"}}},
		"both":                 {"nginx", Reload{Signal: "HUP", Command: []string{"/bin/true"}}},
		"a signal that ends":   {"nginx", Reload{Signal: "TERM"}},
		"a number":             {"nginx", Reload{Signal: "1"}},
		"not absolute":         {"nginx", Reload{Command: []string{"nginx", "-s", "reload"}}},
		"not executable":       {"nginx", Reload{Command: []string{plain}}},
		"not there":            {"nginx", Reload{Command: []string{"/nonexistent"}}},
	} {
		if err := c.how.check(c.program); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if _, err := Find(t.Context(), Spec{Root: t.TempDir(), Program: c.program, Reload: c.how}); err == nil {
			t.Errorf("%s is found", name)
		}
	}
	if err := (Reload{Signal: "HUP"}).check("keylime_agent"); !errors.Is(err, ErrNoReload) {
		t.Errorf("got %v", err)
	}
}

func told(t *testing.T, spec Spec) Controller {
	t.Helper()
	root := t.TempDir() // not the running system: no unit is looked for
	writeUsers(t, root)
	spec.Root = root
	found, err := Find(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(found.Close)
	return found
}

// No shell reads the command, and nothing of our environment is in it.
func TestReloadCommand(t *testing.T) {
	t.Setenv("BAO_TOKEN", "secret")
	out := filepath.Join(t.TempDir(), "out")
	command := []string{script(t, `printf '%s\n' "$#" "$1" "$(pwd)" "$BAO_TOKEN" >"$2"`), "a; rm -rf $HOME `b`", out}
	s := told(t, Spec{Reload: Reload{Command: command}})
	if err := s.Reload(t.Context(), Reload{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if want := "2\na; rm -rf $HOME `b`\n/\n\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if s.Name() != command[0] || s.Account().UID != 0 || s.Alive(t.Context()) != nil || s.Startable(t.Context(), nil) != nil {
		t.Error("a command that can be run is all that is known")
	}
}

// A command that fails says why, in bounds; what it says last counts.
func TestReloadCommandThatFails(t *testing.T) {
	s := told(t, Spec{Reload: Reload{Command: []string{script(t, "head -c 300000 /dev/zero | tr '\\0' 'x'; printf '\\033[1mbad\\nconfiguration'; exit 3")}}})
	err := s.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "[1mbad configuration") {
		t.Fatalf("got %.80v…", err)
	}
	if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("%d bytes: %q", len(err.Error()), err)
	}
}

// A command that hangs ends with what it started, also where it left its output
// open.
func TestReloadCommandThatHangs(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	how := Reload{Command: []string{script(t, "sleep 1000 & echo $! >"+pids+"\nsleep 1000\n")}}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := how.run(ctx); err == nil || ctx.Err() == nil {
		t.Fatalf("got %v", err)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what it started has ended", func() bool {
		p, err := readProcess(pid)
		return err != nil || p.gone()
	})
}

// TestSignalByPIDFile has nginx, which Debian has too, read its configuration again:
// its workers are new, its master is not.
func TestSignalByPIDFile(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("nginx is missing: make setup")
		}
	}
	dir := t.TempDir()
	pidFile, config := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "nginx.conf")
	listen := filepath.Join(dir, "socket")
	writeFile(t, config, fmt.Sprintf("daemon off; pid %s; error_log stderr; events {} http { access_log off; server { listen unix:%s; } }", pidFile, listen), 0o644)
	command := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", config)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	master := command.Process.Pid
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // ends its workers too
		_ = command.Wait()
	})
	workers := func() []int { return childrenOf(t, master) }
	eventually(t, "nginx runs", func() bool {
		_, err := os.Stat(pidFile)
		return err == nil && len(workers()) > 0
	})
	before := workers()

	// The root is the system's: the pid file is where it is.
	s, err := newTold(Spec{Root: "/", Program: "nginx", PIDFile: pidFile, User: "root", Reload: Reload{Signal: "HUP"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Startable(t.Context(), nil), s.Reload(t.Context(), Reload{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new workers", func() bool {
		now := workers()
		return len(now) > 0 && now[0] != before[0]
	})
	if p, err := readProcess(master); err != nil || p.gone() {
		t.Errorf("the master has ended: %v", err)
	}
	since, err := s.Since(t.Context())
	if err != nil || time.Since(since) > time.Minute || time.Since(since) < 0 {
		t.Errorf("since %v, %v", since, err)
	}
	writeFile(t, pidFile, fmt.Sprint(os.Getpid()), 0o644)
	if err := errors.Join(s.Reload(t.Context(), Reload{}), s.Alive(t.Context())); err == nil {
		t.Error("a pid file that names somebody else is believed")
	}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	all, err := allProcesses()
	if err != nil {
		t.Fatal(err)
	}
	var children []int
	for _, p := range all {
		if p.parent == pid && !p.gone() {
			children = append(children, p.pid)
		}
	}
	return children
}

// TestReadAs reads as somebody who may, or may not: by owner, by a supplementary
// group, through folders that can be passed, and through links.
func TestReadAs(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct {
		mode, way os.FileMode
		uid, gid  int
	}{
		"own":         {0o600, 0o711, 4711, 4712},
		"root's":      {0o600, 0o711, 0, 0},
		"group's":     {0o640, 0o711, 0, 4713},
		"other group": {0o640, 0o711, 0, 4714},
		"closed way":  {0o644, 0o700, 4711, 4712},
		"everybody's": {0o644, 0o711, 0, 0},
	} {
		dir := filepath.Join(root, name)
		path := filepath.Join(dir, "file")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte(name), file.mode), os.Chown(path, file.uid, file.gid), os.Chmod(dir, file.way)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/own", filepath.Join(root, "link")), syscall.Mkfifo(filepath.Join(root, "pipe"), 0o666)); err != nil {
		t.Fatal(err)
	}
	keylime := account.Account{Name: "keylime", UID: 4711, GID: 4712, Groups: []int{4713}}
	for name, may := range map[string]bool{
		"/own/file": true, "/link/file": true, "/group's/file": true, "/everybody's/file": true,
		"/root's/file": false, "/other group/file": false, "/closed way/file": false, "/pipe": false, "/absent": false,
	} {
		content, err := ReadAs(root, keylime, name, 100)
		if may != (err == nil && len(content) > 0) {
			t.Errorf("%s: %q, %v", name, content, err)
		}
		if content, err := ReadAs(root, account.Account{Name: "root"}, name, 100); strings.HasSuffix(name, "file") && (err != nil || len(content) == 0) {
			t.Errorf("root at %s: %v", name, err)
		}
	}
	if _, err := ReadAs(root, keylime, "/own/file", 2); err == nil {
		t.Error("a file beyond the limit")
	}
	if _, err := os.ReadFile(filepath.Join(root, "root's/file")); err != nil {
		t.Errorf("this process is not root any more: %v", err)
	}
}

func TestCheckExecutable(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	nobody := account.Account{Name: "nobody", UID: 65534, GID: 65534}
	for mode, may := range map[os.FileMode]bool{0o755: true, 0o700: false, 0o644: false} {
		path := filepath.Join(root, "program")
		writeFile(t, path, "#!/bin/sh\n", mode)
		if err := checkExecutable(root, nobody, "/program"); may != (err == nil) {
			t.Errorf("%o: %v", mode, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHiddenBy is for what systemd says of a unit's sandbox.
func TestHiddenBy(t *testing.T) {
	const key = "/etc/keylime/certs/verifier.key"
	pair := func(path string) [][]any { return [][]any{{path, "ro"}} }
	for want, properties := range map[string]map[string]any{
		"":                    {"ProtectSystem": "strict", "ReadOnlyPaths": []string{"/etc"}, "InaccessiblePaths": []string{"/etc/keylime/certs2", "-/srv"}, "ProtectHome": "yes", "PrivateTmp": true},
		"InaccessiblePaths":   {"InaccessiblePaths": []string{"-/etc/keylime/certs/"}},
		"TemporaryFileSystem": {"TemporaryFileSystem": pair("/etc/keylime")},
		"RootDirectory":       {"RootDirectory": "/srv/root"},
		"RootImage":           {"RootImage": "/srv/root.img"},
	} {
		if got := hiddenBy(properties, key); got != want {
			t.Errorf("hidden by %q, not %q", got, want)
		}
	}
	bound := map[string]any{"TemporaryFileSystem": pair("/etc:ro"), "BindReadOnlyPaths": [][]any{{"/srv/x", "/etc/keylime/certs", false, uint64(0)}}}
	if got := hiddenBy(bound, key); got != "" {
		t.Errorf("bound in, and hidden by %q", got)
	}
	for folder, setting := range map[string]map[string]any{"/home/x": {"ProtectHome": "tmpfs"}, "/tmp/x": {"PrivateTmp": true}} {
		if hiddenBy(setting, folder) == "" {
			t.Errorf("%s is seen under %v", folder, setting)
		}
	}
}
