// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"funlab.casa/omen/tools/output"
)

// releasePage is played word for word, but for names that are no one's.
const releasePage = repository + "/docs/release.md"

// testArchiveInOpenBao installs from the archive, with the stanza.
func (r release) testArchiveInOpenBao(t *testing.T) {
	n := newNode(t)
	p := r.page(t, n, "")
	downloads := r.download(t)
	n.shell(downloads, p.block("## Check", "sh", 0))
	if out := n.shell(downloads, p.block("## Which checksum OpenBao wants", "sh", 0)); strings.TrimSpace(out) != r.hostSum(t) {
		t.Errorf("the page's command says %q", out)
	}
	n.shell(downloads, p.block("## Install from the archive", "sh", 0))
	n.start(p.block("## Install from the archive", "hcl", 0))
	n.shell(downloads, p.block("## Install from the archive", "sh", 2))
	n.checkRuns(testVersion, r.hostSum(t))
}

// testRegistered installs from the archive and registers by hand.
func (r release) testRegistered(t *testing.T) {
	n := newNode(t)
	p := r.page(t, n, "")
	downloads := r.download(t)
	n.shell(downloads, p.block("## Install from the archive", "sh", 0))
	directory, _, _ := strings.Cut(p.block("## Install from the archive", "hcl", 0), "\n")
	n.start(directory + "\n")
	n.shell(downloads, p.block("## Which checksum OpenBao wants", "sh", 0)+p.block("## Install from the archive", "sh", 1))
	n.shell(downloads, p.block("## Install from the archive", "sh", 2))
	n.checkRuns(testVersion, r.hostSum(t))
}

// testUpgrade moves a mount to a second version while the server runs.
func (r release) testUpgrade(t *testing.T) {
	n := newNode(t)
	p := r.page(t, n, "")
	n.shell(r.download(t), p.block("## Install from the archive", "sh", 0))
	first := p.block("## Install from the archive", "hcl", 0)
	n.start(first)
	n.shell(n.dir, p.block("## Install from the archive", "sh", 2))
	n.checkRuns(testVersion, r.hostSum(t))

	next := release{output.Order{Version: nextVersion, Source: repository, Out: t.TempDir()}}
	b, err := next.build(t.Context(), v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(n.plugins, plugin+"-"+nextVersion), b.Content, 0o700))
	second := strings.ReplaceAll(p.block("## Upgrade", "hcl", 0), r.hostSum(t), digest(b.Content))
	n.configure(first + second)
	check(t, n.process.Process.Signal(syscall.SIGHUP))
	n.await(func() bool {
		status, _ := n.call(http.MethodGet, "sys/plugins/catalog/auth/tpm?version="+nextVersion, nil)
		return status == http.StatusOK
	})
	n.shell(n.dir, p.block("## Upgrade", "sh", 0))
	n.checkRuns(nextVersion, digest(b.Content))
}

// testImageInOpenBao has the server download the image itself.
func (r release) testImageInOpenBao(t *testing.T) {
	n := newNode(t)
	image, _ := r.push(t)
	p := r.page(t, n, image)
	n.start(p.block("## Install by image", "hcl", 0))
	n.shell(n.dir, p.block("## Install from the archive", "sh", 2))
	n.checkRuns(testVersion, r.hostSum(t))
	r.checkLink(n)
}

// testDownloadFirst has the registry gone when the server starts.
func (r release) testDownloadFirst(t *testing.T) {
	n := newNode(t)
	image, unplug := r.push(t)
	p := r.page(t, n, image)
	n.configure(p.block("## Install by image", "hcl", 0))
	n.shell(n.dir, p.block("## Install by image", "sh", 0))
	r.checkLink(n)
	unplug()
	n.start(p.block("## Install by image", "hcl", 0))
	n.shell(n.dir, p.block("## Install from the archive", "sh", 2))
	n.checkRuns(testVersion, r.hostSum(t))
}

// testOtherChecksum: what the registry has is not what the server was told.
func (r release) testOtherChecksum(t *testing.T) {
	n := newNode(t)
	image, _ := r.push(t)
	config := r.page(t, n, image).block("## Install by image", "hcl", 0)
	n.configure(strings.ReplaceAll(config, r.hostSum(t), strings.Repeat("ab", 32)))
	n.wantEnd("plugin hash mismatch")
	if files, err := filepath.Glob(filepath.Join(n.plugins, ".oci-cache", "*", "*", "*")); err != nil || len(files) != 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

// checkLink: the page says where the program is.
func (r release) checkLink(n *node) {
	n.t.Helper()
	link := filepath.Join(n.plugins, "auth-tpm-"+testVersion)
	target, err := os.Readlink(link)
	check(n.t, err)
	content, err := os.ReadFile(link)
	check(n.t, err)
	if !strings.HasPrefix(target, ".oci-cache/") || digest(content) != r.hostSum(n.t) {
		n.t.Errorf("%s leads to %s, sum %s", link, target, digest(content))
	}
}

// hostSum is the checksum of the plugin for this machine.
func (r release) hostSum(t *testing.T) string {
	t.Helper()
	sum := r.checksums(t)[plugin+"_linux_"+runtime.GOARCH]
	if sum == "" {
		t.Fatalf("no plugin for %s", runtime.GOARCH)
	}
	return sum
}

// download is a folder with the released files.
func (r release) download(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS(r.Out)))
	return dir
}

// A page is docs/release.md for one release, node and registry.
type page struct {
	t    *testing.T
	text string
}

func (r release) page(t *testing.T, n *node, image string) page {
	t.Helper()
	text, err := os.ReadFile(releasePage)
	check(t, err)
	return page{t, strings.NewReplacer(
		"v0.1.0", testVersion, "v0.1.1", nextVersion, "/usr/local/lib/openbao/plugins", n.plugins, "/etc/openbao/openbao.hcl", n.config,
		`"SHA256"`, `"`+r.hostSum(t)+`"`, "registry.example.org/"+plugin, image, "linux_amd64", "linux_"+runtime.GOARCH,
	).Replace(string(text))}
}

// block is one of the code blocks below a heading.
func (p page) block(heading, language string, number int) string {
	p.t.Helper()
	_, section, found := strings.Cut(p.text, "\n"+heading+"\n")
	if !found {
		p.t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(section, -1)
	if len(blocks) <= number {
		p.t.Fatalf("%s: %d blocks of %s", heading, len(blocks), language)
	}
	return blocks[number][1]
}
