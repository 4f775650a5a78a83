// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const hostVariable = "OMEN_WORLD_HOST"

// overlaid are the directories a host may write; the first files below them
// are the machine's.
var overlaid = []string{"/etc", "/usr/bin", "/usr/local", "/var/lib", "/var/log"}

// strangers are traces that this machine may have of what a host gets anew.
var strangers = []string{
	"/etc/keylime", "/var/lib/keylime", "/etc/omen-agent", "/var/lib/omen-agent",
	"/etc/openbao", "/var/lib/openbao", "/var/log/keylime", "/var/log/openbao",
}

// runHost is process 1 of one host. It says "ready" when the host's file
// systems are there, collects orphans, and ends, and the host with it, when
// its standard input does.
func runHost() error {
	name, dir := os.Getenv(hostVariable), os.Getenv(dirVariable)
	if err := mountHost(name, dir); err != nil {
		return fmt.Errorf("host %s: %w", name, err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for range children {
			collect(0)
		}
	}()
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func mountHost(name, dir string) error {
	err := errors.Join(
		unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		unix.Sethostname([]byte(name)),
	)
	if err != nil {
		return err
	}
	for _, path := range overlaid {
		if err := overlay(path, filepath.Join(dir, "hosts", name)); err != nil {
			return err
		}
	}
	for _, path := range strangers {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := hideDevices(); err != nil {
		return err
	}
	return unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
}

// overlay makes path writable for this host alone; what is written lies in
// memory below base.
func overlay(path, base string) error {
	part := filepath.Join(base, strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"))
	upper, work := filepath.Join(part, "upper"), filepath.Join(part, "work")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(upper, 0o700), os.Mkdir(work, 0o700)); err != nil {
		return err
	}
	// The merged directory has the upper one's mode.
	if err := os.Chmod(upper, info.Mode().Perm()); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work)
	if err := unix.Mount("omen-"+filepath.Base(path), path, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay %s: %w", path, err)
	}
	return nil
}

// hideDevices puts /dev/null over the machine's own TPM.
func hideDevices() error {
	devices, err := filepath.Glob("/dev/tpm*")
	if err != nil {
		return err
	}
	for _, device := range devices {
		if err := unix.Mount("/dev/null", device, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", device, err)
		}
	}
	return nil
}
