// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
)

// reloadConfig has a command, and a process that is known by its pid file.
const reloadConfig = `[[certificate]]
name = "web"
profile = "general"
[certificate.files]
folder = "/srv/reload/omen"
[certificate.service]
reload = ["/srv/reload/leaves"]
pid_file = "` + toldPID + `"
program = "sleep"
`

const toldPID = "/run/omen-told.pid"

// reloads are commands, by the names of their files. Some leave the numbers of their
// processes beside the notes.
var reloads = map[string]string{
	// In a unit file systemd would read more into such words.
	"$HOME %n ${USER} \"'": `#!/bin/sh
printf '%s\0' "$0" "$@" >/etc/omen-reloaded
{ pwd; umask; env; } >/usr/omen-reloaded
cat /proc/self/cgroup >/srv/omen-reloaded
`,
	"fails":   "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x\nprintf '\\033[1mbad\\nconfiguration' >&2\nexit 3\n",
	"killed":  "#!/bin/sh\nkill -TERM $$\n",
	"no such": "#!/nonexistent\n",
	"leaves":  "#!/bin/sh\n" + deafChildren + "exit 0\n",
	"hangs":   "#!/bin/sh\ntrap '' TERM\n" + deafChildren + "echo asking nobody\necho $$ >>" + pids + "\nexec sleep 1000\n",
}

const pids = notes + "/pids"

// deafChildren hear no TERM, and one is in a session of its own.
const deafChildren = "(trap '' TERM; exec sleep 1000) & echo $! >>" + pids + "\n" +
	"setsid sh -c \"trap '' TERM; echo \\$\\$ >>" + pids + "; exec sleep 1000\" &\nwhile [ $(wc -l <" + pids + ") -lt 2 ]; do :; done\n"

// TestReloadOutsideSandbox has the agent's unit run reload commands, while systemd has a
// start job for it: it is of Type=oneshot here. They are outside of the sandbox, and the
// unit stays in it.
func TestReloadOutsideSandbox(t *testing.T) {
	if sandboxed() {
		inReloadSandbox(t)
		return
	}
	m := newMachine(t)
	m.installPackage()
	m.layReloads()
	m.write(configFile, reloadConfig)
	m.playTold()
	m.write("/etc/systemd/system/"+agentService+".d/91-oneshot.conf", "[Service]\nType=oneshot\n")
	m.runs(agentService, t.Name())
	m.expect(agentService, map[string]string{"ProtectSystem": "strict", "NoNewPrivileges": "yes", "PrivateDevices": "yes", "ProtectProc": "default"})
	text, err := os.ReadFile(pids)
	m.must(err)
	if all := strings.Fields(string(text)); len(all) != 2+3+3 || slices.ContainsFunc(all, alive) {
		t.Errorf("of the commands' processes %v some are left, or were never there", all)
	}
	m.await("no unit of a command is left", func() bool {
		return m.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "omen-agent-reload-*") == ""
	})
}

func (m *machine) layReloads() {
	m.t.Helper()
	made := []string{"/srv/reload", "/etc/omen-reloaded", "/usr/omen-reloaded", "/srv/omen-reloaded"}
	m.t.Cleanup(func() {
		for _, path := range made {
			m.must(os.RemoveAll(path))
		}
	})
	for name, text := range reloads {
		path := filepath.Join("/srv/reload", name)
		m.write(path, text)
		m.must(os.Chmod(path, 0o755))
	}
}

// playTold starts a process that is known by what it runs alone: another user's, with a
// command line of its own.
func (m *machine) playTold() {
	m.t.Helper()
	const unit = "omen-told.service"
	m.run("systemd-run", "--unit="+unit, "--uid=nobody", "/bin/bash", "-c", "exec -a 'web: master' sleep 1000")
	m.t.Cleanup(func() {
		m.systemctl("stop", unit)
		m.must(os.RemoveAll(toldPID))
	})
	pid := m.show(unit, "MainPID")
	m.await("it runs", func() bool {
		path, err := os.Readlink("/proc/" + pid + "/exe")
		return err == nil && filepath.Base(path) == "sleep"
	})
	m.write(toldPID, pid)
}

func reloadBy(ctx context.Context, t *testing.T, command ...string) error {
	t.Helper()
	s, err := service.Find(ctx, service.Spec{Root: "/", Reload: service.Reload{Command: command}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Reload(ctx, service.Reload{})
}

func inReloadSandbox(t *testing.T) {
	mayNot(t, "/etc/omen-reloaded", "/usr/omen-reloaded", "/srv/omen-reloaded")
	t.Run("works", reloadWorks)
	t.Run("fails", reloadFails)
	t.Run("leaves", func(t *testing.T) {
		if err := reloadBy(t.Context(), t, "/srv/reload/leaves"); err != nil {
			t.Error(err)
		}
	})
	t.Run("canceled", reloadCanceled)
	t.Run("hangs", reloadHangs)
	t.Run("told", func(t *testing.T) {
		s, err := service.Find(t.Context(), service.Spec{Root: "/", Program: "sleep", PIDFile: toldPID, Reload: service.Reload{Command: []string{"/srv/reload/leaves"}}})
		if err == nil {
			err = s.Alive(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
	})
	mayNot(t, "/etc/omen-reloaded", "/usr/omen-reloaded", "/srv/omen-reloaded")
}

// reloadWorks: arguments arrive as they are, and nothing of ours does.
func reloadWorks(t *testing.T) {
	command := []string{
		"/srv/reload/$HOME %n ${USER} \"'", "a b", "100%n %% %H %", "$HOME", "${HOME}", "$HOME/x ${HOME}x $$ $ $$$", "$@",
		`"quoted" 'single' \ back\n \x41`, "", "; rm -rf `b` | >", "tab\tnew\nline", "é", "-x", "@y",
	}
	if err := reloadBy(t.Context(), t, command...); err != nil {
		t.Fatal(err)
	}
	if got := read(t, "/etc/omen-reloaded"); got != strings.Join(command, "\x00")+"\x00" {
		t.Errorf("got %q", got)
	}
	got := strings.Split(strings.TrimSpace(read(t, "/usr/omen-reloaded")), "\n")
	if got[0] != "/" || got[1] != "0022" {
		t.Errorf("folder %s, umask %s", got[0], got[1])
	}
	for _, line := range got[2:] {
		switch name, _, _ := strings.Cut(line, "="); name {
		case "PATH", "LANG", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "PWD":
		case "HOME", "USER", "LOGNAME":
			if !strings.HasSuffix(line, "root") {
				t.Error(line)
			}
		default:
			t.Errorf("it got %s", line)
		}
	}
	if groups := read(t, "/srv/omen-reloaded"); !strings.Contains(groups, "/system.slice/omen-agent-reload-") || strings.Contains(groups, agentService) {
		t.Errorf("it ran in %s", groups)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func reloadFails(t *testing.T) {
	for name, want := range map[string]string{"fails": "exit status 3: ", "killed": "signal: terminated", "no such": "exit status 203"} {
		err := reloadBy(t.Context(), t, "/srv/reload/"+name)
		if err == nil || !strings.HasPrefix(err.Error(), "reload by /srv/reload/"+name+": "+want) {
			t.Errorf("%s: %.200v", name, err)
			continue
		}
		if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\n") || name == "fails" && !strings.HasSuffix(err.Error(), "x [1mbad configuration") {
			t.Errorf("%s: %d bytes: %q", name, len(err.Error()), err)
		}
		if !strings.HasPrefix(remedy.Of(err), "journalctl -u omen-agent-reload-") {
			t.Errorf("%s: hint %q", name, remedy.Of(err))
		}
	}
}

// reloadCanceled ends a command when nobody waits for it any more.
func reloadCanceled(t *testing.T) {
	m := &machine{t: t}
	before := strings.Count(read(t, pids), "\n")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reloadBy(ctx, t, "/srv/reload/hangs") }()
	m.await("it runs", func() bool { return strings.Count(read(t, pids), "\n") == before+3 })
	cancel()
	began := time.Now()
	if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// reloadHangs takes the time that a command has, and no more.
func reloadHangs(t *testing.T) {
	began := time.Now()
	err := reloadBy(t.Context(), t, "/srv/reload/hangs")
	took := time.Since(began).Round(time.Second)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), ": ended after 30s: asking nobody") {
		t.Errorf("got %v", err)
	}
	if took < 30*time.Second || took > 34*time.Second {
		t.Errorf("took %v", took)
	}
}
