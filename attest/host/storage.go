// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
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

// ErrNoRecord says that this host has no storage root on record, and so cannot know
// which key a secret may be asked from.
var ErrNoRecord = errors.New("no storage root on record")

// Storage gives the storage root of this TPM, which the prover closes, for keys that
// are about to be made. With a record it costs the TPM nothing, and only the key on
// record will do. Without one the TPM is asked, and the attestation key has to say
// which key it is, so that nothing between this program and the TPM can give a key of
// its own. Accepted puts that on record.
func (p *Prover) Storage(ctx context.Context) (*tpm.Storage, error) {
	if p.keys == nil {
		if err := p.refresh(ctx); err != nil {
			return nil, err
		}
	}
	if p.storage != nil && p.vouches(p.voucher) {
		return p.storage, nil
	}
	if err := p.closeStorage(ctx); err != nil {
		return nil, err
	}
	if err := p.openStorage(ctx); err != nil {
		return nil, fmt.Errorf("find storage root: %w", err)
	}
	return p.storage, nil
}

// vouches says whether this is the attestation key that the server is told about.
func (p *Prover) vouches(voucher []byte) bool { return bytes.Equal(voucher, p.keys.ak.Name()) }

// openStorage takes the storage root on record, or has another one vouched for.
func (p *Prover) openStorage(ctx context.Context) error {
	known := p.knownRoot()
	if known != nil && known.root.Parent == tpm.SRKHandle {
		return p.useStorage(ctx, known)
	}
	storage, err := p.tpm.Storage(ctx, nil)
	if err != nil {
		return err
	}
	switch persistent := storage.Root(); {
	case known == nil:
		return p.vouch(ctx, storage)
	case persistent == nil:
		return p.useStorage(ctx, known)
	case !bytes.Equal(persistent.Public, known.root.Public):
		return ErrStorage
	default: // it has become persistent since, which makes it cheaper
		return p.vouch(ctx, storage)
	}
}

// knownRoot is the storage root on record that the present attestation key vouched
// for, unless it is in doubt.
func (p *Prover) knownRoot() *rootRecord {
	known := loadRoot(p.config.StateDir)
	if p.doubted || known == nil || !p.vouches(known.voucher) {
		return nil
	}
	return known
}

func (p *Prover) useStorage(ctx context.Context, known *rootRecord) error {
	storage, err := p.tpm.Storage(ctx, &known.root)
	if err != nil {
		return err
	}
	p.storage, p.voucher = storage, known.voucher
	return nil
}

// vouch has the attestation key certify the storage root. If the record of the
// attestation key turns out wrong, the keys are looked up once more.
func (p *Prover) vouch(ctx context.Context, storage *tpm.Storage) error {
	err := p.vouchOnce(ctx, storage)
	if err != nil && !p.fresh && mayBeTheRecord(ctx, err) {
		if err := p.refresh(ctx); err != nil {
			return err
		}
		err = p.vouchOnce(ctx, storage)
	}
	if err != nil {
		return err
	}
	p.storage, p.voucher = storage, p.keys.ak.Name()
	return nil
}

func (p *Prover) vouchOnce(ctx context.Context, storage *tpm.Storage) error {
	nonce := make([]byte, sha256.Size)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	return p.withAK(ctx, func(ak tpm.Key) error {
		info, signature, err := storage.CertifyRoot(ctx, ak, nonce)
		if err != nil {
			return err
		}
		return verify(p.keys.ak, info, signature)
	})
}

// RecordedStorage gives the storage root on record, for secrets that were sealed
// before. It asks nobody, and takes no other one: ErrNoRecord where there is none.
func (p *Prover) RecordedStorage(ctx context.Context) (*tpm.Storage, error) {
	known := loadRoot(p.config.StateDir)
	if known == nil {
		return nil, ErrNoRecord
	}
	if p.storage != nil && bytes.Equal(p.voucher, known.voucher) && p.storage.Is(known.root) {
		return p.storage, nil
	}
	if err := p.closeStorage(ctx); err != nil {
		return nil, err
	}
	if err := p.useStorage(ctx, known); err != nil {
		return nil, err
	}
	return p.storage, nil
}

// Accepted is for after the server has let this host in: then its attestation key is
// that of a TPM which the server trusts, and what it vouched for goes on record.
func (p *Prover) Accepted() error {
	if p.storage == nil || p.keys == nil || p.config.LookOnly || !p.vouches(p.voucher) {
		return nil
	}
	root := p.storage.Root() // one that was vouched for is known
	return rootRecord{root: *root, voucher: p.voucher}.save(p.config.StateDir)
}

// DoubtStorage turns away from the storage root on record, so that the next Storage
// asks the TPM itself. It is for after ErrStorage, where new keys are about to be
// made and nothing old is to be opened.
func (p *Prover) DoubtStorage(ctx context.Context) error {
	p.doubted = true
	return p.closeStorage(ctx)
}

func (p *Prover) closeStorage(ctx context.Context) error {
	if p.storage == nil {
		return nil
	}
	storage := p.storage
	p.storage, p.voucher = nil, nil
	return storage.Close(ctx)
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
