// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// SRKHandle is where a machine keeps its storage root key (TCG TPM v2.0
// Provisioning Guidance 1.0, section 7.8).
const SRKHandle tpm2.TPMHandle = 0x81000001

// ErrStorage says that a key or a secret belongs to another storage root: the
// owner hierarchy was cleared, or this is another TPM.
var ErrStorage = errors.New("made under another storage root key")

// A Blob is an object that only the storage root which made it can load: a
// TPMT_PUBLIC (TPM 2.0 part 2, section 12.2.4) and the inside of a TPM2B_PRIVATE
// (section 12.3.7).
type Blob struct{ Public, Private []byte }

// Storage is the standard P-256 storage root key, the parent of every key and
// secret of ours. It is the one that is persistent at [SRKHandle]; where that
// handle is empty, or holds another key, which is left alone, the same key is
// made from its template each time it is used. Close ends it. It is for one
// goroutine.
type Storage struct {
	tpm   *TPM
	known *Key // the persistent one; nil: made for each use
	held  *heldKey
}

// A heldKey is a key that stays loaded between two uses, so that one renewal
// need not load it three times.
type heldKey struct {
	key     Key
	private []byte
}

// Storage finds the storage root. record is what Public gave the last time: with
// it the TPM is not asked, and what answers in its place fails every session. nil
// asks the TPM.
func (t *TPM) Storage(ctx context.Context, record []byte) (*Storage, error) {
	if record != nil {
		key, err := KnownKey(SRKHandle, record)
		if err != nil || CheckStorageRoot(record) != nil {
			return nil, errors.New("find storage root key: a record of another key")
		}
		return &Storage{tpm: t, known: &key}, nil
	}
	key, found, err := t.find(ctx, srk(SRKHandle))
	if err != nil {
		return nil, fmt.Errorf("find storage root key: %w", err)
	}
	if !found {
		return &Storage{tpm: t}, nil
	}
	return &Storage{tpm: t, known: &key}, nil
}

// Public is the TPMT_PUBLIC of the persistent storage root, for the record; nil
// where it is made for each use.
func (s *Storage) Public() []byte {
	if s.known == nil {
		return nil
	}
	return s.known.Public()
}

// Parent is how a key file names this storage root: [SRKHandle], or the owner
// hierarchy, of which the standard key is made.
func (s *Storage) Parent() tpm2.TPMHandle {
	if s.known == nil {
		return tpm2.TPMRHOwner
	}
	return SRKHandle
}

// Close flushes what is still loaded. The TPM stays open.
func (s *Storage) Close(ctx context.Context) error { return s.release(ctx) }

func srk(handle tpm2.TPMHandle) Primary {
	return Primary{Hierarchy: tpm2.TPMRHOwner, Template: tpm2.ECCSRKTemplate, Handle: handle, Accept: CheckStorageRoot}
}

// CheckStorageRoot takes a TPMT_PUBLIC that differs from the standard template in
// its point only (TCG TPM v2.0 Provisioning Guidance 1.0, section 7.5.1).
func CheckStorageRoot(public []byte) error {
	template := tpm2.ECCSRKTemplate
	want := tpm2.Marshal(&template) // our own template, no wire input
	head := len(want) - 2*(2+32)    // a point of two TPM2B_ECC_PARAMETER
	if len(public) != len(want) || !bytes.Equal(public[:head], want[:head]) {
		return errors.New("not the standard P-256 storage root key")
	}
	return nil
}

// with runs fn with the storage root loaded.
func (s *Storage) with(ctx context.Context, fn func(parent Key) error) error {
	if s.known != nil {
		return fn(*s.known)
	}
	return s.tpm.create(ctx, srk(0), fn)
}

// loaded runs fn with an object loaded, which is flushed again.
func (s *Storage) loaded(ctx context.Context, blob Blob, fn func(Key) error) error {
	key, err := s.load(ctx, blob)
	if err != nil {
		return err
	}
	return errors.Join(fn(key), s.tpm.flush(ctx, key.handle))
}

func (s *Storage) load(ctx context.Context, blob Blob) (key Key, err error) {
	err = s.with(ctx, func(parent Key) error {
		response, err := tpm2.Load{
			ParentHandle: parent.auth(),
			InPrivate:    tpm2.TPM2BPrivate{Buffer: blob.Private},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](blob.Public),
		}.Execute(s.tpm.in(ctx))
		if err != nil {
			return storageError(err)
		}
		key, err = Key{handle: response.ObjectHandle}.withPublic(tpm2.BytesAs2B[tpm2.TPMTPublic](blob.Public))
		if err != nil {
			return errors.Join(err, s.tpm.flush(ctx, response.ObjectHandle))
		}
		return nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("load: %w", err)
	}
	return key, nil
}

// storageError tells an object of another parent, and a session with another key
// than the recorded one, from the TPM's other complaints.
func storageError(err error) error {
	for _, code := range []error{tpm2.TPMRCIntegrity, tpm2.TPMRCHandle, tpm2.TPMRCValue, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCReferenceH0} {
		if errors.Is(err, code) {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	return hintOf(tpm2.TPMRHOwner, err)
}
