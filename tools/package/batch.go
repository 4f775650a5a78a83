// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"funlab.casa/omen/tools/program"
)

// architectures are those of Go; both package formats know them by these names.
var architectures = []string{"amd64", "arm64"}

// A batch is all packages of one version, made from a checkout.
type batch struct {
	version string    // checked
	date    time.Time // of every file
	source  string    // the checkout
	out     string    // the folder that gets the files
	work    string    // where files of packages are laid out, while it is made
}

// make writes all packages.
func (b batch) make(ctx context.Context) (err error) {
	if err := b.clear(); err != nil {
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
	return b.writeChecksums()
}

// pack builds a program for an architecture and writes its packages and its list of
// parts.
func (b batch) pack(ctx context.Context, arch string, d description) error {
	target := filepath.Join(b.work, d.program+"-"+arch)
	p, err := program.Build(ctx, b.source, d.program, b.version, arch, target)
	if err != nil {
		return err
	}
	bom, err := p.BOM(b.date)
	if err == nil {
		err = b.write(fmt.Sprintf("%s_linux_%s.cdx.json", d.program, arch), bom)
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

// clear removes packages that an earlier run left, of whatever version.
func (b batch) clear() error {
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	files, err := b.files()
	if err != nil {
		return err
	}
	checksums, err := filepath.Glob(filepath.Join(b.out, "package-checksums-v*.txt"))
	if err != nil {
		return err
	}
	for _, file := range append(files, checksums...) {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// files are the packages, sorted.
func (b batch) files() ([]string, error) {
	var all []string
	for _, name := range []string{program.Agent, program.Plugin} {
		for _, pattern := range []string{name + "_*.deb", name + "-*.rpm"} {
			found, err := filepath.Glob(filepath.Join(b.out, pattern))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	slices.Sort(all)
	return all, nil
}

// writeChecksums writes the SHA-256 of every package, in the form that `sha256sum -c`
// reads.
func (b batch) writeChecksums() error {
	files, err := b.files()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(content), filepath.Base(file))
	}
	return b.write("package-checksums-"+b.version+".txt", out.Bytes())
}

// write puts a file into place.
func (b batch) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(b.out, name), content, 0o644) //nolint:gosec // public
}
