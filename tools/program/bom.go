// SPDX-License-Identifier: Apache-2.0

package program

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

// BOM lists what is linked into a program, as the program itself says it, in CycloneDX.
// The list has no serial number, which would have to be random.
func (p Program) BOM(date time.Time) ([]byte, error) {
	bom := cdx.NewBOM()
	application := p.application()
	bom.Metadata = &cdx.Metadata{
		Timestamp:  date.Format(time.RFC3339),
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhaseBuild}},
		Component:  &application,
	}
	components := []cdx.Component{standardLibrary(p.Info)}
	for _, module := range linked(p.Info) {
		library, err := library(module)
		if err != nil {
			return nil, err
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
	err := encoder.EncodeVersion(bom, cdx.SpecVersion1_6)
	return out.Bytes(), err
}

func (p Program) application() cdx.Component {
	sum := sha256.Sum256(p.Content)
	reference := fmt.Sprintf("pkg:golang/%s@%s?goarch=%s&goos=linux#cmd/%s", p.Info.Main.Path, p.Version, p.Arch, p.Name)
	return cdx.Component{
		BOMRef: reference, PackageURL: reference, Type: cdx.ComponentTypeApplication, Name: p.Name, Version: p.Version,
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
