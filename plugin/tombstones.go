// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// tombstone keeps out a TPM that a host gave up, so that a board in quarantine
// does not come back by being deleted and enrolled again. Only an operator lifts
// it.
type tombstone struct {
	Host   string    `json:"host"`   // empty: it was denied and never a host
	Reason string    `json:"reason"` // deleted, replaced or denied
	At     time.Time `json:"at"`
	// AKName is the AK that was pinned, hex: it keeps its place in the index, so
	// that the board does not come back by another endorsement key either.
	AKName string `json:"ak_name,omitempty"`
}

// why says in words why the TPM is kept out.
func (t *tombstone) why() string {
	if t.Host == "" {
		return t.Reason
	}
	return fmt.Sprintf("given up by host %s: %s", t.Host, t.Reason)
}

// bury puts a tombstone where a TPM was.
func (b *backend) bury(ctx context.Context, s logical.Storage, id attest.TPMID, host, reason string) error {
	t := tombstone{Host: host, Reason: reason, At: b.wallClock().UTC().Truncate(time.Second)}
	p, err := load[pin](ctx, s, pinPrefix+string(id))
	if err != nil {
		return err
	}
	if p != nil {
		ak, err := p.ak()
		if err != nil {
			return err
		}
		t.AKName = hex.EncodeToString(ak.Name())
	}
	if err := s.Delete(ctx, pinPrefix+string(id)); err != nil {
		return err
	}
	b.seen.forget(id)
	return save(ctx, s, tombstonePrefix+string(id), t)
}

// lift takes a tombstone away: the TPM may be enrolled again.
func lift(ctx context.Context, s logical.Storage, id attest.TPMID) error {
	t, err := load[tombstone](ctx, s, tombstonePrefix+string(id))
	if err != nil || t == nil {
		return err
	}
	if t.AKName != "" {
		if err := s.Delete(ctx, akPrefix+t.AKName); err != nil {
			return err
		}
	}
	return s.Delete(ctx, tombstonePrefix+string(id))
}
