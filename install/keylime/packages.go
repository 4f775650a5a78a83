// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// queryTimeout and maxQuery bound one question to a package database.
const (
	queryTimeout = 10 * time.Second
	maxQuery     = 16 << 10
)

// errNotPackaged means that no package of the Rust agent owns a file.
var errNotPackaged = errors.New("no package of rust-keylime owns it")

// PackageVersion returns the version of the rust-keylime package that owns the
// executable path, asked of dpkg or rpm. The Python agent's numbers mean
// something else, so a package without "rust" in its name does not count.
func PackageVersion(ctx context.Context, root, path string) (string, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, `*?[]\`) {
		return "", errNotPackaged // dpkg-query takes patterns
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	version, err := debianVersion(ctx, root, path)
	if err == nil {
		return version, nil
	}
	return rpmVersion(ctx, root, path)
}

func debianVersion(ctx context.Context, root, path string) (string, error) {
	owner, err := query(ctx, "/usr/bin/dpkg-query", inRoot(root, "--search", path)...)
	if err != nil {
		return "", err
	}
	name, _, found := strings.Cut(owner, ": ")
	if !found || !strings.Contains(name, "rust") || strings.ContainsAny(name, ", \n") {
		return "", errNotPackaged
	}
	return query(ctx, "/usr/bin/dpkg-query", inRoot(root, "--show", "--showformat=${Version}", "--", name)...)
}

func rpmVersion(ctx context.Context, root, path string) (string, error) {
	answer, err := query(ctx, "/usr/bin/rpm", inRoot(root, "--query", "--file", "--queryformat", "%{NAME} %{VERSION}\n", "--", path)...)
	if err != nil {
		return "", err
	}
	name, version, found := strings.Cut(strings.TrimSpace(answer), " ")
	if !found || !strings.Contains(name, "rust") || strings.Contains(version, "\n") {
		return "", errNotPackaged
	}
	return version, nil
}

// inRoot puts the option for another root first, where it is another.
func inRoot(root string, args ...string) []string {
	if root == "/" {
		return args
	}
	return append([]string{"--root=" + root}, args...)
}

// query runs a package tool by its full path, without a shell, and returns the
// beginning of what it prints.
func query(ctx context.Context, tool string, args ...string) (string, error) {
	if _, err := os.Stat(tool); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, tool, args...)
	command.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	output, err := command.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := command.Start(); err != nil {
		return "", err
	}
	text, readErr := io.ReadAll(io.LimitReader(output, maxQuery))
	if err := errors.Join(readErr, command.Wait()); err != nil {
		return "", err
	}
	return string(text), nil
}
