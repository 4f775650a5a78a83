// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const licence = "Apache-2.0" // SPDX

// imageSuffix ends the name of the image's file.
const imageSuffix = "_oci.tar"

// writeImage packs an OCI image layout with one image per platform, all under
// one index with the version as its name (OCI image specification 1.1, image
// layout and annotations).
func (r release) writeImage(binaries []binary) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range binaries {
		image, err := r.image(b)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &b.platform},
		})
	}
	annotated, ok := mutate.Annotations(index, r.annotations()).(v1.ImageIndex)
	if !ok {
		panic("an index with annotations is an index")
	}
	entries, err := r.layout(annotated)
	if err != nil {
		return err
	}
	packed, err := packTar(entries, r.Date)
	if err != nil {
		return err
	}
	return r.Write(plugin+imageSuffix, packed)
}

// image has the binary in its root and nothing else: OpenBao takes the file that
// the entry point names.
func (r release) image(b binary) (v1.Image, error) {
	files, err := packTar([]entry{{plugin, 0o755, b.Content}}, r.Date)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, History: v1.History{Created: v1.Time{Time: r.Date}, CreatedBy: "COPY " + plugin + " /"},
	}); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = b.platform.OS, b.platform.Architecture, b.platform.Variant
	config.Created = v1.Time{Time: r.Date}
	config.Config = v1.Config{Entrypoint: []string{"/" + plugin}, Labels: r.annotations()}
	return mutate.ConfigFile(image, config)
}

func (r release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       plugin,
		"org.opencontainers.image.description": "OpenBao auth method for hosts that prove their TPM",
		"org.opencontainers.image.version":     r.Version,
		"org.opencontainers.image.created":     r.Date.Format(time.RFC3339),
		"org.opencontainers.image.licenses":    licence,
	}
}

// layout are the files of the layout with this index.
func (r release) layout(index v1.ImageIndex) (entries []entry, err error) {
	dir, err := os.MkdirTemp("", "release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, err
	}
	name := map[string]string{"org.opencontainers.image.ref.name": r.Version}
	if err := path.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return nil, err
	}
	files := os.DirFS(dir)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		entries = append(entries, entry{name, 0o644, content})
		return err
	})
	return entries, err
}
