// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goreleaser/nfpm/v2/files"

	"funlab.casa/omen/tools/program"
)

// layOut lists what a package holds. What is no file yet is made in the working folder.
func (b batch) layOut(ctx context.Context, p program.Program, built string, d description, f format) (files.Contents, error) {
	licences, err := p.Licences(ctx, b.Source)
	if err != nil {
		return nil, err
	}
	all := append(append(append([]file{}, d.files...), d.more[f.name]...), f.papers(b, d, licences)...)
	contents := files.Contents{b.entry(d.where, built, 0o755)}
	for _, one := range all {
		from, err := b.laid(d, f, one)
		if err != nil {
			return nil, err
		}
		entry := b.entry(one.path, from, 0o644)
		entry.Type = f.kind(one.path)
		contents = append(contents, entry)
	}
	for _, one := range d.links {
		contents = append(contents, &files.Content{Source: one.to, Destination: one.path, Type: files.TypeSymlink, FileInfo: &files.ContentFileInfo{MTime: b.Date}})
	}
	for _, folder := range slices.Concat(d.folders, d.ownFolders(all)) {
		contents = append(contents, &files.Content{Destination: folder, Type: files.TypeDir, FileInfo: &files.ContentFileInfo{Mode: 0o755, MTime: b.Date}})
	}
	return contents, nil
}

// ownFolders are those that are named as the package and made for its files: rpm takes
// away only what a package says that it has.
func (d description) ownFolders(all []file) (folders []string) {
	for _, one := range all {
		for folder := path.Dir(one.path); strings.Contains(folder, "/"+d.program); folder = path.Dir(folder) {
			if !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		}
	}
	return folders
}

func (b batch) entry(path, from string, mode os.FileMode) *files.Content {
	return &files.Content{Source: from, Destination: path, Type: files.TypeFile, FileInfo: &files.ContentFileInfo{Mode: mode, MTime: b.Date}}
}

// laid is a file of the package on the disk.
func (b batch) laid(d description, f format, one file) (string, error) {
	content := one.content
	if one.from != "" {
		var err error
		if content, err = os.ReadFile(filepath.Join(b.Source, one.from)); err != nil {
			return "", err
		}
	}
	if one.packed {
		var err error
		if content, err = packed(content); err != nil {
			return "", err
		}
	}
	path := filepath.Join(b.work, f.name, d.program, one.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, content, 0o600) //nolint:gosec // paths are our own
}

// packed is by gzip, without name and time.
func packed(content []byte) ([]byte, error) {
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
