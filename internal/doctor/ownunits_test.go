// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/install/unitfile"
)

// sound is what systemd says of a host with the package; the real one is asked by
// test/systemd.
func sound() []service.State {
	return []service.State{
		{Name: unitfile.Agent, Load: "loaded", Enabled: true, Active: "active", Sub: "running", Result: "success", Since: time.Now().Add(-time.Hour)},
		{Name: unitfile.Unseal, Load: "loaded", Enabled: true, Active: "active", Sub: "exited", Result: "success"},
	}
}

// says has systemd say another thing of one unit.
func (h *machine) says(unit int, bend func(*service.State)) {
	h.units = sound()
	bend(&h.units[unit])
}

var ownUnitBreaks = map[string]func(*testing.T){
	"agent-service": func(t *testing.T) {
		h := bareHost(t)
		h.bad("agent-service", NotApplicable, "systemd does not run here")
		h.units = sound()
		h.good("agent-service")
		for words, row := range map[string]struct {
			status Status
			bend   func(*service.State)
		}{
			"it is enabled, and does not run":            {Problem, func(u *service.State) { u.Active = "inactive" }},
			"it has failed: watchdog":                    {Problem, func(u *service.State) { u.Active, u.Result = "failed", "watchdog" }},
			"again and again: 7 restarts, the last end:": {Problem, func(u *service.State) { u.Active, u.Sub, u.Restarts = "activating", "auto-restart", 7 }},
			"systemd cannot use it: bad-setting":         {Problem, func(u *service.State) { u.Load = "bad-setting" }},
			"it runs, and will not after the next boot":  {Warning, func(u *service.State) { u.Enabled = false }},
			"it runs, after 3 restarts":                  {Warning, func(u *service.State) { u.Restarts = 3 }},
			"it is switched off, and nothing else":       {Warning, func(u *service.State) { u.Enabled, u.Active = false, "inactive" }},
			"it is masked, and nothing else":             {Warning, func(u *service.State) { u.Load, u.Enabled, u.Active = "masked", false, "inactive" }},
			"it is not installed, and nothing else":      {Warning, func(u *service.State) { *u = service.State{Load: "not-found", Active: "inactive"} }},
		} {
			h.says(0, row.bend)
			h.bad("agent-service", row.status, words)
		}
		h.units[0] = service.State{Load: "not-found", Active: "inactive"}
		h.place("etc/cron.d/omen", "17 * * * * root /usr/bin/omen-agent renew\n", 0o644)
		h.good("agent-service") // still not installed: an operator's own way
		h.bad("agent-service", OK, "omen-agent is run by /etc/cron.d/omen:1")
	},
	"unseal-service": func(t *testing.T) {
		h := bareHost(t)
		h.units = sound()
		h.bad("unseal-service", NotApplicable, "no key is sealed")
		h.certificate("tenant", strings.Replace(h.certs["tenant"], `"file"`, `"sealed"`, 1))
		h.good("unseal-service") // will be
		h.install("tenant", func(i *install.Item) { i.Sealed = []byte("what the TPM opens") })
		h.good("unseal-service")
		h.says(1, func(u *service.State) { u.Enabled = false })
		h.bad("unseal-service", Warning, "after a boot keys are put back by omen-agent.service")
		h.units[0].Enabled = false
		h.bad("unseal-service", Problem, "after a boot services have no keys")
		h.says(1, func(u *service.State) { u.Active, u.Result = "failed", "exit-code" })
		h.bad("unseal-service", Warning, "it failed: exit-code")
		h.says(1, func(u *service.State) { u.Load = "masked" })
		h.bad("unseal-service", Warning, "it is masked")
		h.says(1, func(u *service.State) { u.Load = "not-found" })
		h.bad("unseal-service", Warning, "it is not installed")
	},
	"daemon-reload": func(t *testing.T) {
		h := bareHost(t)
		h.units = sound()
		h.good("daemon-reload")
		h.says(0, func(u *service.State) { u.Stale = true })
		h.bad("daemon-reload", Warning, unitfile.Agent+": it, or agent.toml, is newer")
		h.says(1, func(u *service.State) { u.Stale = true })
		h.bad("daemon-reload", Warning, unitfile.Unseal+": it, or agent.toml, is newer")
		// A process with mounts of its own, for which a folder was not opened.
		sandboxed := exec.Command("unshare", "--mount", "sh", "-c", "mount --bind /usr /usr && mount -o remount,bind,ro /usr && echo ready && read word")
		in, err := sandboxed.StdinPipe()
		must(t, err)
		out, err := sandboxed.StdoutPipe()
		must(t, err)
		must(t, sandboxed.Start())
		defer func() { must(t, errors.Join(in.Close(), ignoreExit(sandboxed.Wait()))) }()
		_, err = out.Read(make([]byte, 1))
		must(t, err)
		h.says(0, func(u *service.State) {
			u.PID, u.Writable = uint32(sandboxed.Process.Pid), []string{"/usr/bin", "/run", "/none"}
		})
		h.bad("daemon-reload", Warning, "started before /usr/bin was opened to it")
		h.units[0].Writable = []string{"/run", "/none"}
		h.good("daemon-reload")
	},
}

// ignoreExit: the shell's read ends by the end of its input.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// TestSystemdDoesNotAnswer is no fault of the host's units.
func TestSystemdDoesNotAnswer(t *testing.T) {
	h := bareHost(t)
	d := h.doctor()
	d.Only = []string{"agent-service"}
	d.units = func(context.Context, []string) ([]service.State, error) { return nil, os.ErrPermission }
	results, err := d.Examine(t.Context())
	must(t, err)
	if results[0].Status != NotApplicable || !strings.Contains(results[0].Seen, "systemd does not answer: permission denied") {
		t.Errorf("%+v", results)
	}
}

// TestWritableIn reads mounts as the kernel shows them.
func TestWritableIn(t *testing.T) {
	mounts := []byte(`22 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw
30 22 8:1 /etc/nginx /etc/nginx rw,relatime - ext4 /dev/sda1 rw
31 22 8:1 /srv/our\040own /srv/our\040own rw - ext4 /dev/sda1 rw
32 22 0:20 / /run rw,nosuid - tmpfs tmpfs rw
33 32 0:20 / /run ro,nosuid - tmpfs tmpfs rw
broken line
`)
	for path, want := range map[string]bool{
		"/": false, "/etc": false, "/etc/nginx": true, "/etc/nginx/omen": true, "/etc/nginx2": false, "/srv/our own/x": true, "/run/x": false,
	} {
		if got := writableIn(mounts, path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
	if writableIn(nil, "/") {
		t.Error("nothing is mounted")
	}
}
