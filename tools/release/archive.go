// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// An entry is a file in an archive or in a layer of the image.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// writeArchive packs a binary, its licences and the operator's pages.
func (r release) writeArchive(ctx context.Context, b binary) error {
	licences, err := b.Licences(ctx, r.Source)
	if err != nil {
		return err
	}
	entries := []entry{{plugin, 0o755, b.Content}, {"THIRD_PARTY_LICENSES", 0o644, licences}}
	for _, pattern := range []string{"LICENSE", "docs/auth-method*.md", "docs/protocol.md", "docs/release.md", "docs/threat-model.md"} {
		files, err := filepath.Glob(filepath.Join(r.Source, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			entries = append(entries, entry{filepath.Join(filepath.Dir(pattern), filepath.Base(file)), 0o644, content})
		}
	}
	packed, err := compress(packTar(entries, r.Date))
	if err != nil {
		return err
	}
	return r.Write(b.name+".tar.gz", packed)
}

// packTar is the tar file of these entries, the same bytes for the same
// entries and date, in whatever order they are given.
func packTar(entries []entry, date time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for _, e := range entries {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.content)),
			ModTime: date, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// compress has gzip's header empty: no name, no time.
func compress(content []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}
