// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// Forget takes this host's attestation key off the TPM's persistent memory, and
// the records off the state directory. It reports whether the TPM held the key.
// What other programs keep in the TPM, a storage root among them, stays.
func (p *Prover) Forget(ctx context.Context) (evicted bool, err error) {
	if evicted, err = p.tpm.Evict(ctx, akPrimary()); err != nil {
		return false, fmt.Errorf("forget attestation key: %w", err)
	}
	p.keys = nil
	if p.config.StateDir == "" {
		return evicted, nil
	}
	for _, name := range []string{RecordName, RootRecordName} {
		err = errors.Join(err, forget(filepath.Join(p.config.StateDir, name)))
	}
	return evicted, err
}
