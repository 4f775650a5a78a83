// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// tombstone keeps out a TPM that a host gave up, or an endorsement key that a
// record named by its certificate, so that a board in quarantine does not come back
// by being deleted and enrolled again. Only an operator lifts it.
type tombstone struct {
	Host   string    `json:"host"`   // empty: it was denied and never a host
	Reason string    `json:"reason"` // deleted, replaced or denied
	At     time.Time `json:"at"`
	// AKName is the AK that was pinned, or proven while it waited; hex. It keeps its
	// place in the index: no other TPM ID logs in by it. That does not identify a
	// board: a TPM makes as many AKs as somebody asks it for.
	AKName string `json:"ak_name,omitempty"`
}

// why says in words why the TPM is kept out.
func (t *tombstone) why() string {
	if t.Host == "" {
		return t.Reason
	}
	return fmt.Sprintf("given up by host %s: %s", t.Host, t.Reason)
}

// tombstoneName is the tombstone of a place in an index, as an operator names it:
// sha256-…, which is the TPM ID, certificate-… or serial-….
func tombstoneName(claim string) string {
	if id, ok := strings.CutPrefix(claim, tpmPrefix); ok {
		return id
	}
	return strings.Replace(claim, "/", "-", 1)
}

// buried is the tombstone of the first of these places that has one, and its name.
func buried(ctx context.Context, rd reader, claims ...string) (*tombstone, string, error) {
	for _, claim := range claims {
		name := tombstoneName(claim)
		t, err := get[tombstone](ctx, rd, tombstonePrefix+name)
		if err != nil || t != nil {
			return t, name, err
		}
	}
	return nil, "", nil
}

// bury puts a tombstone where a host had a place in an index.
func (b *backend) bury(ctx context.Context, e *edit, claim, host, reason string) error {
	t := tombstone{Host: host, Reason: reason, At: b.wallClock().UTC().Truncate(time.Second)}
	if id, ok := strings.CutPrefix(claim, tpmPrefix); ok {
		p, err := load[pin](ctx, e, pinPrefix+id)
		if err != nil {
			return err
		}
		ak, err := pinnedAK(p)
		if err != nil {
			return err
		}
		if ak != nil {
			t.AKName = hex.EncodeToString(ak.Name())
		}
		if err := e.Delete(ctx, pinPrefix+id); err != nil {
			return err
		}
		e.unseen = append(e.unseen, attest.TPMID(id))
	}
	return save(ctx, e, tombstonePrefix+tombstoneName(claim), t)
}

// deny buries a TPM that waited, with the AK that it proved unless that has become
// another TPM's meanwhile.
func (b *backend) deny(ctx context.Context, e *edit, id attest.TPMID, akName string) error {
	t := tombstone{Reason: "denied", At: b.wallClock().UTC().Truncate(time.Second)}
	if akName != "" {
		other, err := load[akOwner](ctx, e, akPrefix+akName)
		if err != nil {
			return err
		}
		if other == nil {
			t.AKName = akName
			if err := save(ctx, e, akPrefix+akName, akOwner{TPMID: id}); err != nil {
				return err
			}
		}
	}
	e.unseen = append(e.unseen, id)
	return save(ctx, e, tombstonePrefix+string(id), t)
}

// lift takes a tombstone away: what it kept out may be enrolled again.
func lift(ctx context.Context, s logical.Storage, name string) error {
	t, err := load[tombstone](ctx, s, tombstonePrefix+name)
	if err != nil || t == nil {
		return err
	}
	if t.AKName != "" {
		if err := s.Delete(ctx, akPrefix+t.AKName); err != nil {
			return err
		}
	}
	return s.Delete(ctx, tombstonePrefix+name)
}
