// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A Primary describes a primary key: how it is made, where it may lie already,
// and how it is recognised.
type Primary struct {
	// Hierarchy is TPM_RH_ENDORSEMENT, which is also what 0 means, or TPM_RH_OWNER.
	Hierarchy tpm2.TPMHandle
	// Template makes the key; the same TPM makes the same key each time.
	Template tpm2.TPMTPublic
	// Handle is where the key may be persistent; 0 is nowhere.
	Handle tpm2.TPMHandle
	// Accept judges a public area (TPMT_PUBLIC) that was found at Handle or
	// made from Template. It returns an error for another key.
	Accept func(public []byte) error
}

// A Key is a key that can be used inside the block it was given to.
type Key struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
	raw    []byte
}

// Public is the key's TPMT_PUBLIC (TPM 2.0 part 2, section 12.2.4).
func (k Key) Public() []byte { return bytes.Clone(k.raw) }

// Persistent says whether the key outlives the block.
func (k Key) Persistent() bool { return k.handle>>24 == tpm2.TPMHandle(tpm2.TPMHTPersistent) }

// KnownKey is a key that a record says is persistent at handle with this
// public area. Making it costs no command; if the record is wrong, what is
// signed with it does not verify.
func KnownKey(handle tpm2.TPMHandle, public []byte) (Key, error) {
	key := Key{handle: handle}
	if !key.Persistent() {
		return Key{}, fmt.Errorf("known key: handle 0x%08x is not persistent", uint32(handle))
	}
	return key.withPublic(tpm2.BytesAs2B[tpm2.TPMTPublic](public))
}

// withPublic fills in a public area and the Name that follows from it; no name
// is taken from outside.
func (k Key) withPublic(public tpm2.TPM2BPublic) (Key, error) {
	contents, err := public.Contents()
	if err != nil {
		return Key{}, fmt.Errorf("read public area: %w", err)
	}
	hash, err := contents.NameAlg.Hash()
	if err != nil {
		return Key{}, fmt.Errorf("read public area: %w", err)
	}
	k.public, k.raw = *contents, public.Bytes()
	digest := hash.New()
	digest.Write(k.raw)
	k.name = tpm2.TPM2BName{Buffer: digest.Sum([]byte{byte(contents.NameAlg >> 8), byte(contents.NameAlg)})}
	return k, nil
}

// qualified is the Name a primary has when it is chained to its hierarchy.
func (k Key) qualified(hierarchy tpm2.TPMHandle) []byte {
	return k.under(tpm2.HandleName(hierarchy).Buffer)
}

// under is the Qualified Name of a key below one with this Qualified Name (TPM 2.0
// part 1, section 26.5).
func (k Key) under(parent []byte) []byte {
	hash, err := k.public.NameAlg.Hash()
	if err != nil {
		return nil
	}
	digest := hash.New()
	digest.Write(parent)
	digest.Write(k.name.Buffer)
	return digest.Sum(k.name.Buffer[:2:2])
}

// WithPrimary runs fn with the key: the persistent one, if the handle holds
// exactly it, else one that is made now and flushed when fn returns.
func (t *TPM) WithPrimary(ctx context.Context, primary Primary, fn func(Key) error) error {
	key, found, err := t.find(ctx, primary)
	if err != nil {
		return err
	}
	if found {
		return fn(key)
	}
	return t.create(ctx, primary, fn)
}

// find looks whether the handle holds the key. A foreign key there is not an
// error, and is left alone.
func (t *TPM) find(ctx context.Context, primary Primary) (Key, bool, error) {
	if primary.Handle == 0 {
		return Key{}, false, nil
	}
	response, err := tpm2.ReadPublic{ObjectHandle: primary.Handle}.Execute(t.in(ctx))
	if errors.Is(err, tpm2.TPMRCHandle) {
		return Key{}, false, nil
	}
	if err != nil {
		return Key{}, false, fmt.Errorf("read persistent handle 0x%08x: %w", uint32(primary.Handle), slots(err))
	}
	key, err := Key{handle: primary.Handle}.withPublic(response.OutPublic)
	if err != nil || primary.Accept(key.raw) != nil {
		return Key{}, false, nil //nolint:nilerr // a key of another shape is simply not ours
	}
	return key, bytes.Equal(response.QualifiedName.Buffer, key.qualified(primary.hierarchy())), nil
}

func (t *TPM) create(ctx context.Context, primary Primary, fn func(Key) error) (err error) {
	response, err := tpm2.CreatePrimary{
		PrimaryHandle: t.authorised(primary.hierarchy()),
		InPublic:      tpm2.New2B(primary.Template),
	}.Execute(t.in(ctx))
	if err != nil {
		return fmt.Errorf("create primary key: %w", hintOf(primary.hierarchy(), err))
	}
	defer func() { err = errors.Join(err, t.flush(ctx, response.ObjectHandle)) }()
	key, err := Key{handle: response.ObjectHandle}.withPublic(response.OutPublic)
	if err != nil {
		return err
	}
	if err := primary.Accept(key.raw); err != nil {
		return fmt.Errorf("create primary key: %w", err)
	}
	return fn(key)
}

// Persist keeps a copy of key at handle, with the owner's authorisation. What
// lies there already is never removed: the TPM refuses with TPM_RC_NV_DEFINED.
func (t *TPM) Persist(ctx context.Context, key Key, handle tpm2.TPMHandle) error {
	_, err := tpm2.EvictControl{
		Auth:             t.authorised(tpm2.TPMRHOwner),
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.handle, Name: key.name},
		PersistentHandle: handle,
	}.Execute(t.in(ctx))
	if err != nil {
		return fmt.Errorf("persist key at 0x%08x: %w", uint32(handle), hintOf(tpm2.TPMRHOwner, err))
	}
	return nil
}

func (p Primary) hierarchy() tpm2.TPMHandle {
	if p.Hierarchy == 0 {
		return tpm2.TPMRHEndorsement
	}
	return p.Hierarchy
}

func (t *TPM) endorsement() tpm2.AuthHandle { return t.authorised(tpm2.TPMRHEndorsement) }

func (t *TPM) authorised(hierarchy tpm2.TPMHandle) tpm2.AuthHandle {
	auth := t.config.EndorsementAuth
	if hierarchy == tpm2.TPMRHOwner {
		auth = t.config.OwnerAuth
	}
	return tpm2.AuthHandle{Handle: hierarchy, Auth: auth.session()}
}

func (t *TPM) flush(ctx context.Context, handle tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(t.cleanup(ctx)); err != nil {
		return fmt.Errorf("flush 0x%08x: %w", uint32(handle), err)
	}
	return nil
}

// hint adds what an operator can do to the TPM's own words about the endorsement
// hierarchy.
func hint(err error) error { return hintOf(tpm2.TPMRHEndorsement, err) }

// hintOf is hint for a hierarchy.
func hintOf(hierarchy tpm2.TPMHandle, err error) error {
	name := "endorsement"
	if hierarchy == tpm2.TPMRHOwner {
		name = "owner"
	}
	switch {
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("%w: the %s hierarchy has another authorisation value: %w", ErrAuth, name, err)
	case errors.Is(err, tpm2.TPMRCHierarchy):
		return fmt.Errorf("the %s hierarchy is disabled: %w", name, err)
	}
	return slots(err)
}

// slots says of a command that found no room in the TPM what takes it. A persistent
// key needs room as well while it is used.
func slots(err error) error {
	for _, code := range []error{tpm2.TPMRCObjectMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles, tpm2.TPMRCMemory} {
		if errors.Is(err, code) {
			return fmt.Errorf("%w: no free slot: %w", ErrBusy, err)
		}
	}
	return err
}
