// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"funlab.casa/omen/tools/output"
	"funlab.casa/omen/tools/program"
)

// plugin is the program that is released, and how every file's name begins.
const plugin = program.Plugin

// platforms are what the plugin is built for. OpenBao asks a registry for the
// exact variant of its processor, which on arm64 is v8: without it in the index
// it finds no image.
func platforms() []v1.Platform {
	return []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
	}
}

// A binary is the plugin for one platform.
type binary struct {
	program.Program
	platform v1.Platform
	name     string // of the released file
}

func (r release) build(ctx context.Context, platform v1.Platform) (b binary, err error) {
	b = binary{platform: platform, name: fmt.Sprintf("%s_%s_%s", plugin, platform.OS, platform.Architecture)}
	b.Program, err = program.Build(ctx, r.Source, plugin, r.Version, platform.Architecture, filepath.Join(r.Out, b.name))
	return b, err
}

// checksums begins the name of the file with the checksums.
const checksums = "checksums-"

// A release is one version of the plugin, made from a checkout.
type release struct{ output.Order }

// make writes the whole release.
func (r release) make(ctx context.Context) error {
	old, err := r.files()
	if err != nil {
		return err
	}
	if err := r.Clear(old, checksums); err != nil {
		return err
	}
	var binaries []binary
	for _, platform := range platforms() {
		b, err := r.build(ctx, platform)
		if err != nil {
			return fmt.Errorf("build for %s: %w", platform, err)
		}
		if err := r.writeArchive(ctx, b); err != nil {
			return fmt.Errorf("archive %s: %w", b.name, err)
		}
		bom, err := b.BOM(r.Date)
		if err == nil {
			err = r.Write(b.name+".cdx.json", bom)
		}
		if err != nil {
			return fmt.Errorf("list the parts of %s: %w", b.name, err)
		}
		binaries = append(binaries, b)
	}
	if err := r.writeImage(binaries); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	made, err := r.files()
	if err != nil {
		return err
	}
	return r.WriteChecksums(made, checksums)
}

// files are the released files but the checksums, sorted.
func (r release) files() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(r.Out, plugin+"_linux_*"))
	if _, missing := os.Stat(filepath.Join(r.Out, plugin+imageSuffix)); err == nil && missing == nil {
		files = append(files, filepath.Join(r.Out, plugin+imageSuffix))
	}
	return files, err
}
