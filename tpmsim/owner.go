// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Persist makes a primary key of a hierarchy and keeps it at handle, as another
// program of the machine would. It returns its TPMT_PUBLIC.
func (t *TPM) Persist(hierarchy, handle tpm2.TPMHandle, template tpm2.TPMTPublic) (public []byte, err error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("make primary key: %w", err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: handle,
	}.Execute(t)
	if err != nil {
		err = fmt.Errorf("persist key at 0x%08x: %w", uint32(handle), err)
	}
	return made.OutPublic.Bytes(), errors.Join(err, t.Flush(made.ObjectHandle))
}

// Evict takes a persistent key off its handle.
func (t *TPM) Evict(handle tpm2.TPMHandle) error {
	there, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t)
	if err == nil {
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: handle, Name: there.Name}, PersistentHandle: handle,
		}.Execute(t)
	}
	if err != nil {
		return fmt.Errorf("evict 0x%08x: %w", uint32(handle), err)
	}
	return nil
}

// Occupy loads n transient keys, as a program without a resource manager does, and
// gives their handles, for Flush.
func (t *TPM) Occupy(n int) (handles []tpm2.TPMHandle, err error) {
	for range n {
		made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
		if err != nil {
			return handles, fmt.Errorf("occupy: %w", err)
		}
		handles = append(handles, made.ObjectHandle)
	}
	return handles, nil
}

// Flush takes transient objects or sessions out of the TPM.
func (t *TPM) Flush(handles ...tpm2.TPMHandle) error {
	var all error
	for _, handle := range handles {
		if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(t); err != nil {
			all = errors.Join(all, fmt.Errorf("flush 0x%08x: %w", uint32(handle), err))
		}
	}
	return all
}

// SetAuth gives a hierarchy another authorisation value, from the empty one.
func (t *TPM) SetAuth(hierarchy tpm2.TPMHandle, value string) error {
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(value)}}.Execute(t)
	if err != nil {
		return fmt.Errorf("set authorisation value: %w", err)
	}
	return nil
}

// LockOut has somebody fail to authorise until the TPM refuses everything that is
// under dictionary-attack protection (TPM 2.0 part 1, section 19.8).
func (t *TPM) LockOut() error {
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")}}},
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("lock out: %w", err)
	}
	for range 100 {
		_, err = tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
			InPublic:     tpm2.New2B(tpm2.ECCSRKTemplate),
		}.Execute(t)
		if errors.Is(err, tpm2.TPMRCLockout) {
			return t.Flush(made.ObjectHandle)
		}
	}
	return errors.Join(fmt.Errorf("lock out: the TPM still says: %w", err), t.Flush(made.ObjectHandle))
}
