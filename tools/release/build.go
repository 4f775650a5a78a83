// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A binary is the plugin for one platform.
type binary struct {
	platform v1.Platform
	name     string // of the released file
	content  []byte
	info     *buildinfo.BuildInfo // what is linked into it
}

// build compiles the plugin: static, without paths of this machine, and without
// the state of the checkout, which a source archive would not have.
func (r release) build(ctx context.Context, platform v1.Platform) (binary, error) {
	b := binary{platform: platform, name: fmt.Sprintf("%s_%s_%s", plugin, platform.OS, platform.Architecture)}
	target, err := filepath.Abs(filepath.Join(r.out, b.name))
	if err != nil {
		return b, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X funlab.casa/omen/plugin.Version="+r.version, "-o", target, "./cmd/"+plugin)
	build.Dir = r.source
	build.Env = append(os.Environ(), buildEnvironment(platform)...)
	if out, err := build.CombinedOutput(); err != nil {
		return b, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if b.content, err = os.ReadFile(target); err != nil {
		return b, err
	}
	b.info, err = buildinfo.Read(bytes.NewReader(b.content))
	return b, err
}

// buildEnvironment settles what a machine may have set and what changes the
// compiled bytes.
func buildEnvironment(platform v1.Platform) []string {
	return []string{
		"GOOS=" + platform.OS, "GOARCH=" + platform.Architecture, "CGO_ENABLED=0",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off",
		"GOFLAGS=-mod=readonly", "GOWORK=off",
	}
}
