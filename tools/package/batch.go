// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"funlab.casa/omen/tools/output"
	"funlab.casa/omen/tools/program"
)

// checksums begins the name of the file with the packages' checksums.
const checksums = "package-checksums-"

// architectures are those of Go; both package formats know them by these names.
var architectures = []string{"amd64", "arm64"}

// A batch is all packages of one version, made from a checkout.
type batch struct {
	output.Order
	work string // where files of packages are laid out, while it is made
}

// make writes all packages.
func (b batch) make(ctx context.Context) (err error) {
	old, err := b.files()
	if err != nil {
		return err
	}
	if err := b.Clear(old, checksums); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "package-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.work) }()
	said, err := b.askAgent(ctx)
	if err != nil {
		return err
	}
	for _, arch := range architectures {
		if err := b.pack(ctx, arch, agentPackage(said)); err != nil {
			return err
		}
		if err := b.pack(ctx, arch, pluginPackage()); err != nil {
			return err
		}
	}
	made, err := b.files()
	if err != nil {
		return err
	}
	return b.WriteChecksums(made, checksums)
}

// pack builds a program for an architecture and writes its packages and its list of
// parts.
func (b batch) pack(ctx context.Context, arch string, d description) error {
	target := filepath.Join(b.work, d.program+"-"+arch)
	p, err := program.Build(ctx, b.Source, d.program, b.Version, arch, target)
	if err != nil {
		return err
	}
	bom, err := p.BOM(b.Date)
	if err == nil {
		err = b.Write(fmt.Sprintf("%s_linux_%s.cdx.json", d.program, arch), bom)
	}
	if err != nil {
		return fmt.Errorf("list the parts of %s: %w", d.program, err)
	}
	for _, format := range formats {
		contents, err := b.layOut(ctx, p, target, d, format)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", format.name, d.program, err)
		}
		if err := b.writePackage(d, arch, format, contents); err != nil {
			return fmt.Errorf("%s of %s: %w", format.name, d.program, err)
		}
	}
	return nil
}

// files are the packages, sorted.
func (b batch) files() ([]string, error) {
	var all []string
	for _, name := range []string{program.Agent, program.Plugin} {
		for _, pattern := range []string{name + "_*.deb", name + "-*.rpm"} {
			found, err := filepath.Glob(filepath.Join(b.Out, pattern))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	slices.Sort(all)
	return all, nil
}
