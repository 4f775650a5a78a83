// SPDX-License-Identifier: Apache-2.0

package nspawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// makeGroups makes a control group for the container in each hierarchy that a
// systemd uses, so that nothing of it is left among the machine's own.
func (c *Container) makeGroups() error {
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		mount := mounts[fields[1]]
		if len(fields) != 3 || mount == "" {
			continue
		}
		group := filepath.Join(mount, fields[2], filepath.Base(c.dir))
		if err := os.Mkdir(group, 0o755); err != nil {
			return err
		}
		c.groups = append(c.groups, group)
	}
	if len(c.groups) == 0 {
		return errors.New("no control group hierarchy that systemd can use")
	}
	return nil
}

// hierarchies finds where the unified hierarchy ("") and systemd's own of
// version 1 ("name=systemd") are mounted.
func hierarchies() (map[string]string, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case fields[2] == "cgroup2":
			found[""] = fields[1]
		case fields[2] == "cgroup" && strings.Contains(fields[3], "name=systemd"):
			found["name=systemd"] = fields[1]
		}
	}
	return found, nil
}

// removeGroups removes them, the innermost first.
func (c *Container) removeGroups() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	for _, group := range c.groups {
		errs = append(errs, Await(ctx, func() error { return removeGroup(group) }))
	}
	c.groups = nil
	return errors.Join(errs...)
}

func removeGroup(top string) error {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	for _, group := range slices.Backward(groups) {
		err = errors.Join(err, syscall.Rmdir(group))
	}
	return err
}

// launcher is the name under which this program becomes nspawn.
const launcher = "launch"

// Become turns a program that was started to boot a container into nspawn, and does not
// return then.
func Become() {
	if filepath.Base(os.Args[0]) != launcher || len(os.Args) < 3 {
		return
	}
	fmt.Fprintln(os.Stderr, "nspawn:", launch(os.Args[1:]))
	os.Exit(1)
}

// launch becomes nspawn: in its control groups, with mounts that nobody else sees.
func launch(arguments []string) error {
	for group := range strings.SplitSeq(arguments[0], ":") {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	for target, kind := range map[string]string{"/proc": "proc", "/run": "tmpfs"} {
		if err := syscall.Mount(kind, target, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	path, err := exec.LookPath(arguments[1])
	if err != nil {
		return fmt.Errorf("%w: apt-get install systemd-container", err)
	}
	return syscall.Exec(path, arguments[1:], os.Environ())
}
