// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Evict takes the persistent key off its handle, where exactly that key lies there.
// It reports whether it did; a foreign key there, or none, is left as it is.
func (t *TPM) Evict(ctx context.Context, primary Primary) (bool, error) {
	key, found, err := t.find(ctx, primary)
	if err != nil || !found {
		return false, err
	}
	_, err = tpm2.EvictControl{
		Auth:             t.authorised(tpm2.TPMRHOwner),
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.handle, Name: key.name},
		PersistentHandle: primary.Handle,
	}.Execute(t.in(ctx))
	if err != nil {
		return false, fmt.Errorf("evict 0x%08x: %w", uint32(primary.Handle), hintOf(tpm2.TPMRHOwner, err))
	}
	return true, nil
}
