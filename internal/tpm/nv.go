// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrNoCertificate says that an NV index is not defined: this TPM has no
// certificate of that kind.
var ErrNoCertificate = errors.New("no certificate in the TPM")

// Bounds of an NV read. Every TPM takes chunks of 512 bytes.
const (
	nvChunk   = 512
	nvMaxSize = 8 << 10
)

// ReadCertificate reads one DER certificate from an NV index: by the index's
// own empty authorisation or the owner's, in chunks, without the TCG header
// that some vendors put before it and the padding that others put behind. It
// does not parse what the certificate says. An index that is not there is
// ErrNoCertificate.
func (t *TPM) ReadCertificate(ctx context.Context, index tpm2.TPMHandle) ([]byte, error) {
	response, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.in(ctx))
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("NV index 0x%08x: %w", uint32(index), ErrNoCertificate)
	}
	if err != nil {
		return nil, fmt.Errorf("read NV index 0x%08x: %w", uint32(index), err)
	}
	content, err := t.readNV(ctx, index, response)
	if err == nil {
		content, err = trimCertificate(content)
	}
	if err != nil {
		return nil, fmt.Errorf("read NV index 0x%08x: %w", uint32(index), err)
	}
	return content, nil
}

func (t *TPM) readNV(ctx context.Context, index tpm2.TPMHandle, response *tpm2.NVReadPublicResponse) ([]byte, error) {
	public, err := response.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if public.DataSize > nvMaxSize {
		return nil, fmt.Errorf("%d bytes, at most %d", public.DataSize, nvMaxSize)
	}
	named := tpm2.NamedHandle{Handle: index, Name: response.NVName}
	var refused error
	for _, reader := range t.nvReaders(named, public.Attributes) {
		content, err := t.readChunks(ctx, reader, named, public.DataSize)
		if err == nil {
			return content, nil
		}
		refused = errors.Join(refused, err)
	}
	if refused == nil {
		refused = errors.New("neither its own authorisation nor the owner's may read it")
	}
	return nil, refused
}

// nvReaders lists who may read an index, the one that needs no secret first.
func (t *TPM) nvReaders(index tpm2.NamedHandle, attributes tpm2.TPMANV) []tpm2.AuthHandle {
	var readers []tpm2.AuthHandle
	if attributes.AuthRead {
		readers = append(readers, tpm2.AuthHandle{Handle: index.Handle, Name: index.Name, Auth: tpm2.PasswordAuth(nil)})
	}
	if attributes.OwnerRead {
		readers = append(readers, tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: t.config.OwnerAuth.session()})
	}
	return readers
}

func (t *TPM) readChunks(ctx context.Context, reader tpm2.AuthHandle, index tpm2.NamedHandle, size uint16) ([]byte, error) {
	content := make([]byte, 0, size)
	for len(content) < int(size) {
		response, err := tpm2.NVRead{
			AuthHandle: reader,
			NVIndex:    index,
			Size:       min(nvChunk, size-uint16(len(content))),
			Offset:     uint16(len(content)),
		}.Execute(t.in(ctx))
		if err != nil {
			return nil, err
		}
		if got := len(response.Data.Buffer); got == 0 || len(content)+got > int(size) {
			return nil, fmt.Errorf("a chunk of %d bytes", got)
		}
		content = append(content, response.Data.Buffer...)
	}
	return content, nil
}

// trimCertificate finds the one DER object in content.
func trimCertificate(content []byte) ([]byte, error) {
	// TCG PC Client Specific Implementation Specification for Conventional BIOS
	// 1.21, section 7.4.5: tag 0x1001, type 0 (full certificate), length.
	if len(content) > 5 && bytes.HasPrefix(content, []byte{0x10, 0x01, 0x00}) {
		length := int(binary.BigEndian.Uint16(content[3:5]))
		if length > len(content)-5 {
			return nil, errors.New("its TCG header claims more bytes than there are")
		}
		content = content[5 : 5+length]
	}
	var certificate asn1.RawValue
	if _, err := asn1.Unmarshal(content, &certificate); err != nil {
		return nil, fmt.Errorf("not a certificate: %w", err)
	}
	if certificate.Class != asn1.ClassUniversal || certificate.Tag != asn1.TagSequence || !certificate.IsCompound {
		return nil, errors.New("not a certificate")
	}
	return certificate.FullBytes, nil
}
