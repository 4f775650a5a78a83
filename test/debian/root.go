// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"funlab.casa/omen/test/world"
)

// The units that a root has.
const (
	AgentService  = "omen-agent.service"
	UnsealService = "omen-agent-unseal.service"
	KeylimeAgent  = "keylime_agent.service"
)

// A Root is the folder of a Debian that does not run.
type Root string

// Unpack makes the root out of an archive that test/setup/debian-root.sh has made.
func (r Root) Unpack(ctx context.Context, module, archive string) error {
	path, err := filepath.EvalSymlinks(filepath.Join(module, ".cache", archive))
	if err != nil {
		return fmt.Errorf("%w: run test/setup/debian-root.sh", err)
	}
	if err := os.Mkdir(string(r), 0o755); err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, "tar", "--numeric-owner", "-xpf", path, "-C", string(r)).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", path, err, output)
	}
	return nil
}

// Write writes a file that everybody may read, and the folders above it.
func (r Root) Write(name, text string) error {
	path := filepath.Join(string(r), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // it is a system's configuration
}

// Chroot runs a command in the root. It gets the devices of here: the files of a world
// are on a file system without.
func (r Root) Chroot(ctx context.Context, arguments ...string) error {
	const script = `mount --rbind /dev "$1/dev" && exec chroot "$@"`
	command := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-c", script, "sh", string(r)}, arguments...)...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", arguments, err, output)
	}
	return nil
}

// Lay lays what packages bring, omen-agent's by installing it, and what an operator
// wrote on this host of a world. The program of Keylime's agent is the caller's to lay.
func (r Root) Lay(ctx context.Context, tools world.Tools, host *world.Host) error {
	for name, source := range map[string]string{
		"/usr/lib/sysusers.d/keylime.conf":                     "keylime-sysusers.conf",
		"/usr/lib/tmpfiles.d/keylime.conf":                     "keylime-tmpfiles.conf",
		"/usr/lib/systemd/system/" + KeylimeAgent:              "keylime_agent.service",
		"/usr/lib/systemd/system/var-lib-keylime-secure.mount": "var-lib-keylime-secure.mount",
	} {
		text, err := os.ReadFile(filepath.Join(tools.Module, "test/systemd/testdata", source))
		if err := errors.Join(err, r.Write(name, string(text))); err != nil {
			return err
		}
	}
	for _, name := range []string{"/etc/hosts", "/etc/keylime/agent.conf", world.BaoCAFile, world.AnchorFile, world.ClientsAnchorFile} {
		text, err := host.ReadFile(name)
		if err := errors.Join(err, r.Write(name, string(text))); err != nil {
			return err
		}
	}
	if err := r.installPackage(ctx, tools); err != nil {
		return err
	}
	return r.Chroot(ctx, "systemctl", "enable", KeylimeAgent)
}

func (r Root) installPackage(ctx context.Context, tools world.Tools) error {
	found, err := filepath.Glob(filepath.Join(tools.Module, "dist/out", "omen-agent_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("packages %v, %v: run make packages", found, err) //nolint:errorlint // it may be nil
	}
	text, err := os.ReadFile(found[0])
	if err := errors.Join(err, r.Write("/root/omen-agent.deb", string(text))); err != nil {
		return err
	}
	return r.Chroot(ctx, "dpkg", "--install", "/root/omen-agent.deb")
}
