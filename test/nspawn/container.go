// SPDX-License-Identifier: Apache-2.0

package nspawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"funlab.casa/omen/test/debian"
)

// bootTime is how long a container may take to be up.
const bootTime = 60 * time.Second

// Container is a Debian, booted or not, seen from outside. It ends with the thread that
// boots it: lock that (runtime.LockOSThread), and keep it.
type Container struct {
	Binds    []string // what it gets to see read-only: PATH or PATH:INSIDE
	Writable []string // the same, to be written
	Network  bool     // it has the network of who boots it, else one of its own
	Volatile bool     // what it writes is gone with the boot

	dir    string // holds root, and nspawn's lock beside it
	groups []string
	nspawn *exec.Cmd
	output bytes.Buffer
	leader int // its PID 1, as the machine counts
}

// Unpack makes a root of its own out of the cached archive in the module's folder.
func (c *Container) Unpack(ctx context.Context, module string) (err error) {
	if c.dir, err = os.MkdirTemp("", "omen-systemd-"); err != nil {
		return err
	}
	return debian.Root(c.Root()).Unpack(ctx, module, "debian-root.tar")
}

// Root is where its files are.
func (c *Container) Root() string { return filepath.Join(c.dir, "root") }

// Boot starts nspawn as PID 1 of a namespace of its own: whatever ends it ends the whole
// container. It returns when all jobs of the boot are done.
func (c *Container) Boot(ctx context.Context) error {
	if err := c.Begin(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	if err := Await(ctx, func() error { return c.up(ctx) }); err != nil {
		return fmt.Errorf("boot: %w\n%s", err, c.output.Bytes())
	}
	return nil
}

// Begin begins to boot.
func (c *Container) Begin() error {
	if err := c.makeGroups(); err != nil {
		return err
	}
	c.leader = 0
	c.nspawn = &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{launcher, strings.Join(c.groups, ":")}, c.arguments()...), Stdout: &c.output, Stderr: &c.output,
		Env:         []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL},
	}
	return c.nspawn.Start()
}

func (c *Container) arguments() []string {
	arguments := []string{
		"systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit",
		"--settings=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe",
		"--machine=omen-test", "--directory=" + c.Root(),
	}
	if c.Volatile {
		arguments = append(arguments, "--volatile=overlay")
	}
	if !c.Network {
		arguments = append(arguments, "--private-network")
	}
	for _, bind := range c.Binds {
		arguments = append(arguments, "--bind-ro="+bind)
	}
	for _, bind := range c.Writable {
		arguments = append(arguments, "--bind="+bind)
	}
	return arguments
}

// up returns an error while the container is not booted.
func (c *Container) up(ctx context.Context) error {
	if err := c.FindLeader(); err != nil {
		return err
	}
	// It exits 1 where a unit of Debian's has failed, which is no matter.
	state, err := c.Enter(ctx, "systemctl", "is-system-running").Output()
	if word := strings.TrimSpace(string(state)); word != "running" && word != "degraded" {
		return fmt.Errorf("system is %q: %w", word, err)
	}
	return nil
}

// FindLeader returns an error while there is no systemd in the container.
func (c *Container) FindLeader() error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.nspawn.Process.Pid, c.nspawn.Process.Pid))
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(children)) {
		if comm, err := os.ReadFile("/proc/" + field + "/comm"); err == nil && string(comm) == "systemd\n" {
			c.leader, err = strconv.Atoi(field)
			return err
		}
	}
	return errors.New("no systemd in the container")
}

// Enter prepares a command inside.
func (c *Container) Enter(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "nsenter", append([]string{"--all", "--target", strconv.Itoa(c.leader), "--"}, arguments...)...)
	command.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"}
	command.Dir = "/"
	return command
}

// Run runs a command inside and returns what it says.
func (c *Container) Run(ctx context.Context, arguments ...string) ([]byte, error) {
	return c.Enter(ctx, arguments...).CombinedOutput()
}

// Cut cuts its power: everything that ran in it is gone, its files are not.
func (c *Container) Cut() error {
	if c.nspawn == nil || c.nspawn.Process == nil {
		return nil
	}
	if err := c.nspawn.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	// It was killed: that is no news. All its processes are gone by now.
	_ = c.nspawn.Wait()
	c.nspawn = nil
	return c.removeGroups()
}

// Remove ends the container and takes away what it leaves.
func (c *Container) Remove() error {
	err := c.Cut()
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// Await asks until there is no error, or ctx ends.
func Await(ctx context.Context, ask func() error) error {
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
