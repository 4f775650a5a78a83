// SPDX-License-Identifier: Apache-2.0

//go:build long

package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"funlab.casa/omen/test/nspawn"
)

// testInside boots a container, runs this binary in it with the same arguments
// and returns its exit code.
func testInside(ctx context.Context) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("root is needed: sudo make test-long")
	}
	// The container ends with the thread that starts it, not with the process.
	runtime.LockOSThread()
	binds, venv, err := findBinds()
	if err != nil {
		return 1, err
	}
	c := &nspawn.Container{Binds: binds, Volatile: true}
	defer func() { err = errors.Join(err, c.Remove()) }()
	if err := c.Unpack(ctx, "../.."); err != nil {
		return 1, err
	}
	if err := c.Boot(ctx); err != nil {
		return 1, err
	}
	return run(ctx, c, venv)
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
	var packages []string
	for name, target := range map[string]string{"omen-agent_*_" + runtime.GOARCH + ".deb": packageFile, "omen-agent-*." + machines[runtime.GOARCH] + ".rpm": rpmFile} {
		found, err := filepath.Glob(filepath.Join(module, "dist", "out", name))
		if err != nil || len(found) != 1 {
			return nil, "", fmt.Errorf("packages %v, %w: run make packages", found, err)
		}
		packages = append(packages, found[0]+":"+target)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	page := filepath.Join(module, "docs", "guide.md")
	return append(packages, venv, self+":"+program, standin+":/usr/bin/keylime_agent", page+":"+guide), venv, nil
}

// machines are architectures as rpm calls them.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// run runs the tests inside.
func run(ctx context.Context, c *nspawn.Container, venv string) (int, error) {
	arguments := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(argument string) bool {
		// These name files of the machine.
		return strings.HasPrefix(argument, "-test.testlogfile=") || strings.HasPrefix(argument, "-test.outputdir=")
	})
	command := c.Enter(ctx, append([]string{program}, arguments...)...)
	command.Env = append(command.Env, insideKey+"=1", venvKey+"="+venv)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err := command.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) && failed.Exited() {
		return failed.ExitCode(), nil
	}
	return 0, err
}
