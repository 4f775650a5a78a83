// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
)

// RootRecordName is the file of the storage root in the state directory.
const RootRecordName = "srk.pub"

// A rootRecord is the storage root that secrets go to and come from: in the file, how
// key files name it (4 bytes, big-endian), the Name of the attestation key that
// vouched for it, and its TPMT_PUBLIC. A wrong one costs a refusal.
type rootRecord struct {
	root    tpm.StorageRoot
	voucher []byte
}

// nameSize is that of a Name by SHA-256 (TPM 2.0 part 1, section 16).
const nameSize = 2 + 32

// loadRoot reads the record, nil where there is none. What is not exactly one is
// none.
func loadRoot(dir string) *rootRecord {
	if dir == "" {
		return nil
	}
	file, err := os.Open(filepath.Join(dir, RootRecordName))
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxRecord))
	if err != nil || len(text) < 4+nameSize {
		return nil
	}
	r := &rootRecord{voucher: text[4 : 4+nameSize]}
	r.root.Parent, r.root.Public = tpm2.TPMHandle(binary.BigEndian.Uint32(text)), text[4+nameSize:]
	if r.root.Parent != tpm.SRKHandle && r.root.Parent != tpm2.TPMRHOwner || tpm.CheckStorageRoot(r.root.Public) != nil {
		return nil
	}
	return r
}

// save keeps the record, for root alone.
func (r rootRecord) save(dir string) error {
	if dir == "" {
		return nil
	}
	text := slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(r.root.Parent)), r.voucher, r.root.Public)
	path := filepath.Join(dir, RootRecordName)
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, text) {
		return nil
	}
	if err := replace(path, text); err != nil {
		return fmt.Errorf("keep storage root record: %w", err)
	}
	return nil
}

// RecordedRoot is the storage root on record in a state directory, for who looks; nil
// where there is none. It is to be trusted no more than the file.
func RecordedRoot(dir string) *tpm.StorageRoot {
	known := loadRoot(dir)
	if known == nil {
		return nil
	}
	return &known.root
}
