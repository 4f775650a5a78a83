// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The programs that are shipped.
const (
	Agent  = "omen-agent"
	Plugin = "openbao-plugin-auth-tpm"
)

// versionIn is where each program has its version.
var versionIn = map[string]string{Agent: "main.version", Plugin: "funlab.casa/omen/plugin.Version"}

// licence is that of both programs, by SPDX.
const licence = "Apache-2.0"

// A Program is one of ours, compiled for Linux.
type Program struct {
	Name, Version string
	Arch          string // as Go calls it
	Content       []byte
	Info          *buildinfo.BuildInfo // what is linked into it
}

// Build compiles a program of the checkout source into the file target: static, without
// paths of this machine, and without the state of the checkout, which a source archive
// would not have.
func Build(ctx context.Context, source, name, version, arch, target string) (Program, error) {
	p := Program{Name: name, Version: version, Arch: arch}
	target, err := filepath.Abs(target)
	if err != nil {
		return p, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X "+versionIn[name]+"="+version, "-o", target, "./cmd/"+name)
	build.Dir = source
	build.Env = append(os.Environ(), environment(arch)...)
	if out, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if p.Content, err = os.ReadFile(target); err != nil {
		return p, err
	}
	p.Info, err = buildinfo.Read(bytes.NewReader(p.Content))
	return p, err
}

// environment settles what a machine may have set and what changes the compiled bytes.
func environment(arch string) []string {
	return []string{
		"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off",
		"GOFLAGS=-mod=readonly", "GOWORK=off",
	}
}
