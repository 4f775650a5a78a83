// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bootTime is how long the container may take to be up.
const bootTime = 60 * time.Second

// container is a booted Debian, seen from outside.
type container struct {
	dir    string // holds root, and nspawn's lock beside it
	groups []string
	nspawn *exec.Cmd
	output bytes.Buffer
	leader int // its PID 1, as the machine counts
}

// testInside boots a container, runs this binary in it with the same arguments
// and returns its exit code.
func testInside(ctx context.Context) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("root is needed: sudo make test-long")
	}
	// The container ends with the thread that starts it, not with the process.
	runtime.LockOSThread()
	c := &container{}
	defer func() { err = errors.Join(err, c.remove()) }()
	binds, venv, err := findBinds()
	if err != nil {
		return 1, err
	}
	if err := c.unpack(ctx); err != nil {
		return 1, err
	}
	if err := c.boot(ctx, binds); err != nil {
		return 1, fmt.Errorf("boot: %w\n%s", err, c.output.Bytes())
	}
	return c.run(ctx, venv)
}

// findBinds returns what the container gets to see of the machine, read-only.
func findBinds() (binds []string, venv string, err error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, "", err
	}
	module := filepath.Dir(filepath.Dir(here))
	if venv, err = filepath.EvalSymlinks(filepath.Join(module, ".cache", "venv")); err != nil {
		return nil, "", fmt.Errorf("%w: run make setup", err)
	}
	standin := filepath.Join(module, "bin", "standin")
	if _, err := os.Stat(standin); err != nil {
		return nil, "", fmt.Errorf("%w: run make test-long", err)
	}
	packages, err := filepath.Glob(filepath.Join(module, "dist", "out", "omen-agent_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(packages) != 1 {
		return nil, "", fmt.Errorf("packages %v, %w: run make packages", packages, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	return []string{venv, self + ":" + program, standin + ":/usr/bin/keylime_agent", packages[0] + ":" + packageFile}, venv, nil
}

// unpack makes a root of our own out of the cached archive.
func (c *container) unpack(ctx context.Context) (err error) {
	archive, err := filepath.EvalSymlinks("../../.cache/debian-root.tar")
	if err != nil {
		return fmt.Errorf("%w: run test/setup/debian-root.sh", err)
	}
	if c.dir, err = os.MkdirTemp("", "omen-systemd-"); err != nil {
		return err
	}
	if err := os.Mkdir(c.root(), 0o755); err != nil {
		return err
	}
	if output, err := exec.CommandContext(ctx, "tar", "--numeric-owner", "-xpf", archive, "-C", c.root()).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", archive, err, output)
	}
	return nil
}

func (c *container) root() string { return filepath.Join(c.dir, "root") }

// boot starts nspawn as PID 1 of a namespace of its own: whatever ends it ends
// the whole container.
func (c *container) boot(ctx context.Context, binds []string) error {
	if err := c.makeGroups(); err != nil {
		return err
	}
	arguments := append([]string{"launch", strings.Join(c.groups, ":")},
		"systemd-nspawn", "--boot", "--quiet", "--volatile=overlay", "--register=no", "--keep-unit", "--private-network",
		"--settings=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe",
		"--machine=omen-test", "--directory="+c.root())
	for _, bind := range binds {
		arguments = append(arguments, "--bind-ro="+bind)
	}
	c.nspawn = &exec.Cmd{
		Path: "/proc/self/exe", Args: arguments, Stdout: &c.output, Stderr: &c.output,
		Env:         []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL},
	}
	if err := c.nspawn.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	return await(ctx, func() error { return c.up(ctx) })
}

// up returns an error while the container is not booted.
func (c *container) up(ctx context.Context) error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.nspawn.Process.Pid, c.nspawn.Process.Pid))
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(children)) {
		if comm, err := os.ReadFile("/proc/" + field + "/comm"); err == nil && string(comm) == "systemd\n" {
			c.leader, err = strconv.Atoi(field)
			if err != nil {
				return err
			}
		}
	}
	if c.leader == 0 {
		return errors.New("no systemd in the container")
	}
	// It exits 1 where a unit of Debian's has failed, which is no matter.
	state, err := c.enter(ctx, "systemctl", "is-system-running").Output()
	if word := strings.TrimSpace(string(state)); word != "running" && word != "degraded" {
		return fmt.Errorf("system is %q: %w", word, err)
	}
	return nil
}

// enter prepares a command inside.
func (c *container) enter(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "nsenter", append([]string{"--all", "--target", strconv.Itoa(c.leader), "--"}, arguments...)...)
	command.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"}
	command.Dir = "/"
	return command
}

// run runs the tests inside.
func (c *container) run(ctx context.Context, venv string) (int, error) {
	arguments := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(argument string) bool {
		// These name files of the machine.
		return strings.HasPrefix(argument, "-test.testlogfile=") || strings.HasPrefix(argument, "-test.outputdir=")
	})
	command := c.enter(ctx, append([]string{program}, arguments...)...)
	command.Env = append(command.Env, insideKey+"=1", venvKey+"="+venv)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) && failed.Exited() {
		return failed.ExitCode(), nil
	}
	return 0, err
}

// remove ends the container and takes away what it leaves.
func (c *container) remove() error {
	if c.nspawn != nil && c.nspawn.Process != nil {
		if err := c.nspawn.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		// It was killed: that is no news. All its processes are gone by now.
		_ = c.nspawn.Wait()
	}
	err := c.removeGroups()
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// await asks until there is no error, or ctx ends.
func await(ctx context.Context, ask func() error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
