// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// Errors of the storage root that a caller has a hint for.
var (
	ErrStorage = tpm.ErrStorage // a key or secret of another storage root: the TPM was cleared, or is another one
	ErrState   = tpm.ErrState   // the machine is in no state that a secret is sealed to
	ErrAuth    = tpm.ErrAuth    // a hierarchy has another authorisation value than the configured
)

// Storage gives the storage root of this TPM, which the prover closes. With a
// record it costs the TPM nothing, and only the key on record will do.
func (p *Prover) Storage(ctx context.Context) (*tpm.Storage, error) {
	if p.storage != nil {
		return p.storage, nil
	}
	storage, err := p.tpm.Storage(ctx, loadStorageRoot(p.config.StateDir))
	if err != nil {
		return nil, err
	}
	p.storage = storage
	return storage, saveStorageRoot(p.config.StateDir, storage.Public())
}

// DoubtStorage forgets the storage root on record, so that the next Storage asks
// the TPM itself. It is for after ErrStorage, where new keys are about to be made
// and nothing old is to be opened.
func (p *Prover) DoubtStorage(ctx context.Context) error {
	var err error
	if p.storage != nil {
		err = p.storage.Close(ctx)
	}
	p.storage = nil
	return errors.Join(err, forgetStorageRoot(p.config.StateDir))
}

// certify has the TPM say of each key that is in it that it is there.
func (p *Prover) certify(ctx context.Context, ak tpm.Key, claim Claim, binding attest.Binding, login *attest.LoginRequest) error {
	if len(claim.Resident) == 0 {
		return nil
	}
	storage, err := p.Storage(ctx)
	if err != nil {
		return err
	}
	login.Certify = make([]*attest.Certification, len(login.Keys))
	for i, key := range login.Keys {
		blob, resident := claim.Resident[string(key)]
		if !resident {
			continue
		}
		said := attest.CertifyBinding(binding, key)
		info, signature, err := storage.Certify(ctx, ak, blob, said[:])
		if err != nil {
			return fmt.Errorf("certify key: %w", err)
		}
		login.Certify[i] = &attest.Certification{Info: info, Signature: signature}
	}
	return nil
}

// Present is the policy that is met in the present state of the machine: the
// values of these PCRs of a bank ("sha256" or "sha384") as they are now.
func (p *Prover) Present(ctx context.Context, bank string, pcrs []int) (tpm.SealPolicy, error) {
	selection := attest.Selection{Bank: bank, PCRs: pcrs}
	if err := selection.Check(); err != nil {
		return tpm.SealPolicy{}, fmt.Errorf("check PCR selection: %w", err)
	}
	values, _, err := p.measure(ctx, selection)
	if err != nil {
		return tpm.SealPolicy{}, err
	}
	return tpm.SealPolicy{Bank: selection.Algorithm(), PCRs: pcrs, States: [][][]byte{values}}, nil
}

// Moved lists the PCRs of a policy that have another value now than in the first
// of its states.
func (p *Prover) Moved(ctx context.Context, policy tpm.SealPolicy) ([]int, error) {
	if len(policy.States) == 0 {
		return nil, nil
	}
	now, err := p.tpm.ReadPCRs(ctx, policy.Bank, policy.PCRs)
	if err != nil {
		return nil, err
	}
	var moved []int
	for i, pcr := range policy.PCRs {
		if !bytes.Equal(now[pcr], policy.States[0][i]) {
			moved = append(moved, pcr)
		}
	}
	return moved, nil
}
