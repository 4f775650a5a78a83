// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// Where things are stored. The records under tpm/ and ak/ are the unique
// indexes: a TPM ID belongs to one host, an AK Name to one TPM ID.
const (
	configKey  = "config"
	rolePrefix = "role/"
	hostPrefix = "host/"
	tpmPrefix  = "tpm/" // TPM ID → owner
	pinPrefix  = "pin/" // TPM ID → pin
	akPrefix   = "ak/"  // AK Name, hex → akOwner
)

// owner says whose a TPM is.
type owner struct {
	Host string `json:"host"`
}

// pin is the AK that a TPM activated.
type pin struct {
	AK []byte `json:"ak"` // X ‖ Y
}

// akOwner says in which TPM an AK is.
type akOwner struct {
	TPMID attest.TPMID `json:"tpm_id"`
}

func akKey(ak *attest.AK) string { return akPrefix + hex.EncodeToString(ak.Name()) }

// load reads one record; nil means that there is none.
func load[T any](ctx context.Context, s logical.Storage, key string) (*T, error) {
	entry, err := s.Get(ctx, key)
	if err != nil || entry == nil {
		return nil, err
	}
	record := new(T)
	if err := entry.DecodeJSON(record); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored %s: %v", key, err)
	}
	return record, nil
}

func save(ctx context.Context, s logical.Storage, key string, record any) error {
	entry, err := logical.StorageEntryJSON(key, record)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}

// view runs do over one state of the storage, in which do must not write.
func view(ctx context.Context, s logical.Storage, do func(logical.Storage) error) error {
	transactional, ok := s.(logical.Transactional)
	if !ok {
		return do(s)
	}
	tx, err := transactional.BeginReadOnlyTx(ctx)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback(ctx) // nothing was written; the reason to give up matters more
		return err
	}
	// Over the plugin protocol a transaction that never began shows only here.
	return tx.Commit(ctx)
}

// forget removes what logins have learnt about a TPM: its pin and the pinned
// AK's place in the index.
func forget(ctx context.Context, s logical.Storage, id attest.TPMID) error {
	ak, err := pinned(ctx, s, id)
	if err != nil || ak == nil {
		return err
	}
	if err := s.Delete(ctx, akKey(ak)); err != nil {
		return err
	}
	return s.Delete(ctx, pinPrefix+string(id))
}

// pinned is the AK pinned to a TPM, or nil.
func pinned(ctx context.Context, s logical.Storage, id attest.TPMID) (*attest.AK, error) {
	p, err := load[pin](ctx, s, pinPrefix+string(id))
	if err != nil || p == nil {
		return nil, err
	}
	if len(p.AK) != 64 {
		return nil, attest.Refuse(attest.RuleInternal, "stored pin of %s has %d bytes", id, len(p.AK))
	}
	ak, err := attest.AKFromPoint([32]byte(p.AK[:32]), [32]byte(p.AK[32:]))
	if err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored pin of %s: %v", id, err)
	}
	return ak, nil
}

// setPin pins an AK to a TPM in place of the one before.
func setPin(ctx context.Context, s logical.Storage, id attest.TPMID, ak *attest.AK) error {
	if err := forget(ctx, s, id); err != nil {
		return err
	}
	x, y := ak.Point()
	if err := save(ctx, s, pinPrefix+string(id), pin{AK: append(x[:], y[:]...)}); err != nil {
		return err
	}
	return save(ctx, s, akKey(ak), akOwner{TPMID: id})
}
