// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeBOM lists what is linked into a binary, as the binary itself says it.
// The list has no serial number, which would have to be random.
func (r release) writeBOM(b binary) error {
	bom := cdx.NewBOM()
	application := r.application(b)
	bom.Metadata = &cdx.Metadata{
		Timestamp:  r.date.Format(time.RFC3339),
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhaseBuild}},
		Component:  &application,
	}
	components := []cdx.Component{standardLibrary(b.info)}
	for _, module := range linked(b.info) {
		library, err := library(module)
		if err != nil {
			return err
		}
		components = append(components, library)
	}
	var references []string
	for _, c := range components {
		references = append(references, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: application.BOMRef, Dependencies: &references}}
	var out bytes.Buffer
	encoder := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := encoder.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return err
	}
	return r.write(b.name+".cdx.json", out.Bytes())
}

func (r release) application(b binary) cdx.Component {
	sum := sha256.Sum256(b.content)
	reference := fmt.Sprintf("pkg:golang/%s@%s?goarch=%s&goos=%s#cmd/%s",
		b.info.Main.Path, r.version, b.platform.Architecture, b.platform.OS, plugin)
	return cdx.Component{
		BOMRef: reference, PackageURL: reference, Type: cdx.ComponentTypeApplication, Name: plugin, Version: r.version,
		Hashes:   &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: licence}}},
	}
}

// standardLibrary is called as vulnerability databases call it.
func standardLibrary(info *buildinfo.BuildInfo) cdx.Component {
	version := strings.TrimPrefix(info.GoVersion, "go")
	reference := "pkg:golang/stdlib@" + version
	return cdx.Component{
		BOMRef: reference, PackageURL: reference, Type: cdx.ComponentTypeLibrary, Name: "stdlib", Version: version,
		Scope: cdx.ScopeRequired,
	}
}

// library is a module; its hash is the one of go.sum, over the module's files
// (golang.org/x/mod/sumdb/dirhash, Hash1).
func library(module *debug.Module) (cdx.Component, error) {
	encoded, found := strings.CutPrefix(module.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !found || len(sum) != sha256.Size {
		return cdx.Component{}, fmt.Errorf("sum %q of %s", module.Sum, module.Path)
	}
	reference := packageURL(module.Path, module.Version)
	return cdx.Component{
		BOMRef: reference, PackageURL: reference, Type: cdx.ComponentTypeLibrary, Name: module.Path, Version: module.Version,
		Scope:  cdx.ScopeRequired,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}},
	}, nil
}

// packageURL is in lower case and escaped as the type golang of
// https://github.com/package-url/purl-spec has it.
func packageURL(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// linked are the modules in a binary, replaced ones as what replaces them.
func linked(info *buildinfo.BuildInfo) []*debug.Module {
	var modules []*debug.Module
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		modules = append(modules, module)
	}
	return modules
}
