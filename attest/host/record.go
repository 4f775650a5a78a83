// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// RecordName is the record's file in the state directory.
const RecordName = "tpm.json"

// maxRecord bounds the record's file: a certificate in base64 and little else.
const maxRecord = 16 << 10

// A record is what a TPM said when it was last looked at. It saves the TPM
// work and proves nothing.
type record struct {
	Version       int            `json:"version"`
	EK            string         `json:"ek"`
	Source        source         `json:"source,omitempty"`
	EKCertificate []byte         `json:"ek_certificate,omitempty"`
	EKPublic      []byte         `json:"ek_public,omitempty"` // DER SubjectPublicKeyInfo, instead of a certificate
	TPMID         attest.TPMID   `json:"tpm_id"`
	AKHandle      tpm2.TPMHandle `json:"ak_handle"` // 0: not persistent
	AKPublic      []byte         `json:"ak_public"` // TPMT_PUBLIC
}

const recordVersion = 1

// load returns the keys on record, or nil: a record that is missing, cannot be
// read or contradicts itself is no record.
func load(dir string) *keys {
	if dir == "" {
		return nil
	}
	file, err := os.Open(filepath.Join(dir, RecordName))
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	decoder := json.NewDecoder(io.LimitReader(file, maxRecord))
	decoder.DisallowUnknownFields()
	var r record
	if err := decoder.Decode(&r); err != nil {
		return nil
	}
	return r.keys()
}

// keys rebuilds what follows from a record, nil where it contradicts itself.
func (r record) keys() *keys {
	if r.Version != recordVersion || (r.AKHandle != 0 && r.AKHandle != attest.AKHandle) {
		return nil
	}
	ek, err := r.endorsementKey()
	if err != nil || ek.id != r.TPMID || ek.class.name != r.EK {
		return nil
	}
	ak, err := attest.ParseAK(r.AKPublic)
	if err != nil {
		return nil
	}
	return &keys{ek: ek, ak: ak, handle: r.AKHandle}
}

// endorsementKey is the key on record, from where its source says.
func (r record) endorsementKey() (*endorsementKey, error) {
	switch {
	case r.Source == fromTPM && r.EKPublic == nil, r.Source == fromFile && r.EKPublic == nil:
		return parseEndorsementKey(r.EKCertificate, r.Source)
	case r.Source == fromNobody && r.EKCertificate == nil:
		key, err := x509.ParsePKIXPublicKey(r.EKPublic)
		if err != nil {
			return nil, err
		}
		return newEndorsementKey(key)
	default:
		return nil, errors.New("a record that contradicts itself")
	}
}

// save keeps the record: all of it or none, for root alone.
func (k *keys) save(dir string) error {
	if dir == "" {
		return nil
	}
	r := record{
		Version: recordVersion, EK: k.ek.class.name, Source: k.ek.source, EKCertificate: k.ek.certificate, TPMID: k.ek.id,
		AKHandle: k.handle, AKPublic: k.ak.Public(),
	}
	if k.ek.certificate == nil {
		r.EKPublic = k.ek.spki
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = replace(filepath.Join(dir, RecordName), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep TPM record: %w", err)
	}
	return nil
}

// forget removes the file of a record, if there is one.
func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget record: %w", err)
	}
	return nil
}

// replace puts content in a file of mode 0600 in one step, in a folder that is made
// if it is not there.
func replace(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
