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

// A StorageRoot is what a record says of a storage root.
type StorageRoot struct {
	Parent tpm2.TPMHandle // as Storage.Parent gives it
	Public []byte         // TPMT_PUBLIC
}

// Storage is the standard P-256 storage root key, the parent of every key and
// secret of ours. It is the one that is persistent at [SRKHandle]; where that
// handle is empty, or holds another key, which is left alone, the same key is
// made from its template each time it is used. Close ends it. It is for one
// goroutine.
type Storage struct {
	tpm        *TPM
	root       *Key // the only one that will do; nil until one was made
	persistent bool
	held       *heldKey
}

// A heldKey is a key that stays loaded between two uses, so that one renewal
// need not load it three times.
type heldKey struct {
	key     Key
	private []byte
}

// Storage finds the storage root. known is what Root gave the last time: it costs
// no command, and what answers in its place fails, every secret with it. nil asks
// the TPM what there is.
func (t *TPM) Storage(ctx context.Context, known *StorageRoot) (*Storage, error) {
	if known == nil {
		return t.findStorage(ctx)
	}
	root, err := Key{}.withPublic(tpm2.BytesAs2B[tpm2.TPMTPublic](known.Public))
	if err != nil || CheckStorageRoot(known.Public) != nil {
		return nil, errors.New("find storage root key: a record of another key")
	}
	s := &Storage{tpm: t, root: &root, persistent: known.Parent == SRKHandle}
	if s.persistent {
		root.handle = SRKHandle
	}
	return s, nil
}

func (t *TPM) findStorage(ctx context.Context) (*Storage, error) {
	key, found, err := t.find(ctx, srk(SRKHandle))
	if err != nil {
		return nil, fmt.Errorf("find storage root key: %w", err)
	}
	if !found {
		return &Storage{tpm: t}, nil
	}
	return &Storage{tpm: t, root: &key, persistent: true}, nil
}

// Root is what to put on record; nil before a root that is made for each use was
// made the first time.
func (s *Storage) Root() *StorageRoot {
	if s.root == nil {
		return nil
	}
	return &StorageRoot{Parent: s.Parent(), Public: s.root.Public()}
}

// Is says whether this is the storage root of a record.
func (s *Storage) Is(known StorageRoot) bool {
	return s.root != nil && s.Parent() == known.Parent && bytes.Equal(s.root.raw, known.Public)
}

// Parent is how a key file names this storage root: [SRKHandle], or the owner
// hierarchy, of which the standard key is made.
func (s *Storage) Parent() tpm2.TPMHandle {
	if s.persistent {
		return SRKHandle
	}
	return tpm2.TPMRHOwner
}

// Close flushes what is still loaded. The TPM stays open.
func (s *Storage) Close(ctx context.Context) error { return s.release(ctx) }

func srk(handle tpm2.TPMHandle) Primary {
	return Primary{Hierarchy: tpm2.TPMRHOwner, Template: RootTemplate(), Handle: handle, Accept: CheckStorageRoot}
}

// RootTemplate makes the storage root that a key file means by the owner hierarchy
// as its parent: its unique field is of size zero (draft-bottomley-tpm2-keys,
// section 3.1). The template with a unique field of zeros makes another key, which
// OpenSSL's provider does not find.
func RootTemplate() tpm2.TPMTPublic {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return template
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
	if s.persistent {
		return fn(*s.root)
	}
	return s.tpm.create(ctx, srk(0), func(made Key) error {
		if s.root == nil {
			root := made
			root.handle = 0 // the next one may have another
			s.root = &root
		}
		if !bytes.Equal(s.root.raw, made.raw) {
			return fmt.Errorf("make storage root key: %w", ErrStorage)
		}
		return fn(made)
	})
}

func (s *Storage) load(ctx context.Context, blob Blob) (key Key, err error) {
	err = s.with(ctx, func(parent Key) (err error) {
		key, err = s.loadUnder(ctx, parent, blob)
		return err
	})
	if err != nil {
		if key.handle != 0 { // the parent could not be flushed
			err = errors.Join(err, s.tpm.flush(ctx, key.handle))
		}
		return Key{}, fmt.Errorf("load: %w", err)
	}
	return key, nil
}

func (s *Storage) loadUnder(ctx context.Context, parent Key, blob Blob) (Key, error) {
	public := tpm2.BytesAs2B[tpm2.TPMTPublic](blob.Public)
	key, err := Key{}.withPublic(public)
	if err != nil {
		return Key{}, err
	}
	response, err := tpm2.Load{
		ParentHandle: parent.auth(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: blob.Private},
		InPublic:     public,
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Key{}, storageError(err)
	}
	key.handle = response.ObjectHandle
	return key, nil
}

// foreign are the answers of a TPM in which another key, or none, is where the
// storage root was, or which is asked to load what another root made. A salt for
// another root cannot be read, or gives a session in which no HMAC is right.
var foreign = [...]tpm2.TPMRC{
	tpm2.TPMRCIntegrity, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0, tpm2.TPMRCType, tpm2.TPMRCAttributes, tpm2.TPMRCKey,
	tpm2.TPMRCScheme, tpm2.TPMRCValue, tpm2.TPMRCSize, tpm2.TPMRCECCPoint,
	tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthUnavailable,
}

// storageError tells an object of another parent, and a session with another key
// than the recorded one, from the TPM's other complaints.
func storageError(err error) error {
	for _, code := range foreign {
		if errors.Is(err, code) {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	return hintOf(tpm2.TPMRHOwner, err)
}
