// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// writeChecksums writes the SHA-256 of every other file, in the form that
// `sha256sum -c` reads.
func (r release) writeChecksums() error {
	files, err := r.files()
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
	return r.write("checksums-"+r.version+".txt", out.Bytes())
}
