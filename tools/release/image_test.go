// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// testImage pulls the image as OpenBao does on each kind of machine: by its
// exact variant, and without one.
func (r release) testImage(t *testing.T) {
	pushed, _ := r.push(t)
	reference, err := name.ParseReference(pushed + ":" + testVersion)
	check(t, err)
	for platform, arch := range map[string]string{
		"linux/amd64": "amd64", "linux/arm64": "arm64", "linux/arm64/v8": "arm64",
	} {
		wanted, err := v1.ParsePlatform(platform)
		check(t, err)
		image, err := remote.Image(reference, remote.WithPlatform(*wanted))
		if err != nil {
			t.Errorf("%s: %v", platform, err)
			continue
		}
		r.checkImage(t, image, arch)
	}
}

func (r release) checkImage(t *testing.T, image v1.Image, arch string) {
	t.Helper()
	config, err := image.ConfigFile()
	check(t, err)
	if config.Architecture != arch || config.OS != "linux" || !config.Created.Equal(testDate) ||
		!slices.Equal(config.Config.Entrypoint, []string{"/" + plugin}) {
		t.Errorf("%s: %+v", arch, config)
	}
	content, err := io.ReadAll(mutate.Extract(image))
	check(t, err)
	files := 0
	for header, program := range unpack(t, content) {
		files++
		if header.Name != plugin || header.Mode != 0o755 || header.Uid != 0 || digest(program) != r.checksums(t)[plugin+"_linux_"+arch] {
			t.Errorf("%s: %+v", arch, header)
		}
	}
	if files != 1 {
		t.Errorf("%s: %d files", arch, files)
	}
}

// push starts a registry on this machine, puts the layout's only index there
// under the name it has in the layout, and gives the image's name and how to
// end the registry.
func (r release) push(t *testing.T) (image string, unplug func()) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	for header, content := range unpack(t, r.read(t, plugin+"_oci.tar")) {
		path := filepath.Join(dir, header.Name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, content, 0o600))
	}
	all, err := layout.ImageIndexFromPath(dir)
	check(t, err)
	manifest, err := all.IndexManifest()
	check(t, err)
	if len(manifest.Manifests) != 1 {
		t.Fatalf("the layout has %d entries", len(manifest.Manifests))
	}
	index, err := all.ImageIndex(manifest.Manifests[0].Digest)
	check(t, err)
	image = strings.TrimPrefix(server.URL, "http://") + "/" + plugin
	reference, err := name.ParseReference(image + ":" + manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"])
	check(t, err)
	check(t, remote.WriteIndex(reference, index))
	return image, server.Close
}
