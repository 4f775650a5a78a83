// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

const (
	maintainer = "Omen maintainers <omen@funlab.casa>"
	homepage   = "https://funlab.casa/omen"
	revision   = "1" // of the package, for one version of the program
)

// A format is one kind of package.
type format struct {
	name   string
	packer nfpm.Packager
	papers func(b batch, d description, licences []byte) []file // changelog and terms
	kind   func(path string) string                             // of a file, for the format
}

var formats = []format{
	{"deb", deb.Default, debianPapers, func(string) string { return files.TypeFile }},
	{"rpm", rpm.DefaultRPM, rpmPapers, rpmKind},
}

// rpmKind marks what an installation may leave out, and terms.
func rpmKind(path string) string {
	switch {
	case strings.HasPrefix(path, "/usr/share/doc/"), strings.HasPrefix(path, "/usr/share/man/"):
		return files.TypeRPMDoc
	case strings.HasPrefix(path, "/usr/share/licenses/"):
		return files.TypeRPMLicense
	}
	return files.TypeFile
}

func (b batch) writePackage(d description, arch string, f format, contents files.Contents) error {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: d.program, Arch: arch, Version: b.Version, Release: revision,
		Section: d.section, Priority: "optional", Maintainer: maintainer, Homepage: homepage,
		Description: d.summary + "\n" + d.text, MTime: b.Date, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: contents, Depends: d.depends[f.name], Scripts: b.scripts(d, f),
			RPM: nfpm.RPM{Summary: strings.ToUpper(d.summary[:1]) + d.summary[1:], Group: "System Environment/Daemons", BuildHost: "omen", Packager: maintainer},
		},
	})
	if f.name == "rpm" { // Debian has no such field
		info.License = "Apache-2.0"
	}
	var out bytes.Buffer
	if err := f.packer.Package(info, &out); err != nil {
		return err
	}
	return b.Write(f.packer.ConventionalFileName(info), out.Bytes())
}

func (b batch) scripts(d description, f format) nfpm.Scripts {
	path := func(when string) string {
		if name := d.scripts[f.name][when]; name != "" {
			return filepath.Join(b.Source, name)
		}
		return ""
	}
	return nfpm.Scripts{PostInstall: path("postinst"), PreRemove: path("prerm"), PostRemove: path("postrm")}
}

// debianPapers are what Debian's policy wants (chapters 4.4, 12.5 and 12.7).
func debianPapers(b batch, d description, licences []byte) []file {
	doc := "/usr/share/doc/" + d.program
	version := strings.Replace(strings.TrimPrefix(b.Version, "v"), "-", "~", 1)
	changelog := fmt.Sprintf("%s (%s-%s) unstable; urgency=medium\n\n  * Version %s, see changelog.gz.\n\n -- %s  %s\n",
		d.program, version, revision, b.Version, maintainer, b.Date.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	papers := []file{
		{path: doc + "/changelog.Debian.gz", content: []byte(changelog), packed: true},
		{path: doc + "/changelog.gz", from: "CHANGELOG.md", packed: true},
		{path: doc + "/copyright", from: "dist/deb/copyright"},
		{path: doc + "/THIRD_PARTY_LICENSES.gz", content: licences, packed: true},
	}
	if d.override != "" {
		papers = append(papers, file{path: "/usr/share/lintian/overrides/" + d.program, from: d.override})
	}
	return papers
}

func rpmPapers(_ batch, d description, licences []byte) []file {
	terms := "/usr/share/licenses/" + d.program
	return []file{
		{path: terms + "/LICENSE", from: "LICENSE"},
		{path: terms + "/THIRD_PARTY_LICENSES", content: licences},
		{path: "/usr/share/doc/" + d.program + "/CHANGELOG.md", from: "CHANGELOG.md"},
	}
}
