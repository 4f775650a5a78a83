// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// MaxSecret is the most that can be sealed, in bytes (MAX_SYM_DATA, TPM 2.0 part
// 2, annex A).
const MaxSecret = 128

// MaxStates is how many states of a machine a policy can name: one list of
// TPM2_PolicyOR (TPM 2.0 part 3, section 23.6).
const MaxStates = 8

// ErrState says that the machine is in none of the states in which a secret is
// given out.
var ErrState = errors.New("the machine is not in a state that the secret is sealed to")

// A SealPolicy says in which states of the machine a secret is given out. The
// zero value is any state.
type SealPolicy struct {
	Bank tpm2.TPMAlgID // of the PCRs
	PCRs []int         // ascending
	// States are one to MaxStates alternatives, each the values of PCRs in their
	// order.
	States [][][]byte
}

func (p SealPolicy) selection() tpm2.TPMLPCRSelection {
	pcrs := make([]uint, len(p.PCRs))
	for i, pcr := range p.PCRs {
		pcrs[i] = uint(pcr)
	}
	return selection(p.Bank, pcrs)
}

// Check refuses what is no policy: states without PCRs, too many of either,
// values that are not of the bank.
func (p SealPolicy) Check() error {
	if len(p.PCRs) == 0 && len(p.States) == 0 {
		return nil
	}
	hash, err := p.Bank.Hash()
	switch {
	case err != nil:
		return fmt.Errorf("policy: %w", err)
	case len(p.PCRs) == 0 || len(p.PCRs) > 24 || p.PCRs[0] < 0 || p.PCRs[len(p.PCRs)-1] > 23 ||
		!slices.IsSorted(p.PCRs) || len(slices.Compact(slices.Clone(p.PCRs))) != len(p.PCRs):
		return errors.New("policy: PCRs are 0 to 23, ascending, each once")
	case len(p.States) == 0 || len(p.States) > MaxStates:
		return fmt.Errorf("policy: %d states, want 1 to %d", len(p.States), MaxStates)
	}
	for _, state := range p.States {
		if len(state) != len(p.PCRs) || slices.ContainsFunc(state, func(v []byte) bool { return len(v) != hash.Size() }) {
			return errors.New("policy: a state that does not fit the PCRs")
		}
	}
	return nil
}

// branches are the policy digests of TPM2_PolicyPCR, one for each state.
func (p SealPolicy) branches() ([]tpm2.TPM2BDigest, error) {
	var branches []tpm2.TPM2BDigest
	for _, state := range p.States {
		digest := sha256.Sum256(slices.Concat(state...))
		calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
		if err == nil {
			err = tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}, Pcrs: p.selection()}.Update(calculator)
		}
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		branches = append(branches, tpm2.TPM2BDigest{Buffer: calculator.Hash().Digest})
	}
	return branches, nil
}

// digest is the authPolicy of an object under this policy; empty for any state.
func (p SealPolicy) digest() (tpm2.TPM2BDigest, error) {
	branches, err := p.branches()
	switch {
	case err != nil || len(branches) == 0:
		return tpm2.TPM2BDigest{}, err
	case len(branches) == 1:
		return branches[0], nil
	}
	calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err == nil {
		err = tpm2.PolicyOr{PHashList: tpm2.TPMLDigest{Digests: branches}}.Update(calculator)
	}
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("policy: %w", err)
	}
	return tpm2.TPM2BDigest{Buffer: calculator.Hash().Digest}, nil
}

// Seal has the TPM keep secret, at most MaxSecret bytes, for the states of
// policy. It goes to the TPM encrypted, in a session that is salted to the storage
// root: what sits on the bus does not see it. Another key in the root's place is
// ErrStorage, and gets nothing.
func (s *Storage) Seal(ctx context.Context, secret []byte, policy SealPolicy) (blob Blob, err error) {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return Blob{}, fmt.Errorf("seal: %d bytes, want 1 to %d", len(secret), MaxSecret)
	}
	if err := policy.Check(); err != nil {
		return Blob{}, err
	}
	digest, err := policy.digest()
	if err != nil {
		return Blob{}, err
	}
	if err := s.release(ctx); err != nil {
		return Blob{}, err
	}
	err = s.with(ctx, func(parent Key) (err error) {
		blob, err = s.seal(ctx, parent, secret, digest)
		return err
	})
	if err != nil {
		return Blob{}, fmt.Errorf("seal: %w", err)
	}
	return blob, nil
}

func (s *Storage) seal(ctx context.Context, parent Key, secret []byte, policy tpm2.TPM2BDigest) (Blob, error) {
	response, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: s.private(parent, tpm2.AESEncryption(128, tpm2.EncryptIn))},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}},
		InPublic: tpm2.New2B(sealTemplate(policy)),
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, storageError(err)
	}
	return Blob{Public: response.OutPublic.Bytes(), Private: response.OutPrivate.Buffer}, nil
}

// private is a session for one command whose first parameter, there or back,
// nobody on the bus can read. It fails with another key than the one that is
// known under this handle.
func (s *Storage) private(parent Key, encryption tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(parent.handle, parent.public), encryption)
}

// sealTemplate is an object that holds data. Without a policy its empty authValue
// opens it; with one nothing else does. It is not under dictionary-attack
// protection, which would lock it for somebody else's failures.
func sealTemplate(policy tpm2.TPM2BDigest) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, NoDA: true, UserWithAuth: len(policy.Buffer) == 0,
		},
		AuthPolicy: policy,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
	}
}

// Unseal gives the secret back, or ErrState, or ErrStorage. It comes from the TPM
// encrypted, as it went there. What the persistent root has not sealed may be of the
// one that is made for each use: which of the two a machine has changes when another
// program persists one, or takes it away. Only the root that sealed it gives it back,
// so that trying the second shows nothing to anybody.
func (s *Storage) Unseal(ctx context.Context, blob Blob, policy SealPolicy) (secret []byte, err error) {
	if err := policy.Check(); err != nil {
		return nil, err
	}
	if err := s.release(ctx); err != nil {
		return nil, err
	}
	secret, err = s.unsealHere(ctx, blob, policy)
	if s.persistent && errors.Is(err, ErrStorage) && ctx.Err() == nil {
		made := &Storage{tpm: s.tpm}
		if again, other := made.unsealHere(ctx, blob, policy); !errors.Is(other, ErrStorage) {
			secret, err = again, other
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	return secret, nil
}

func (s *Storage) unsealHere(ctx context.Context, blob Blob, policy SealPolicy) (secret []byte, err error) {
	// The session is salted to the storage root, so that one is loaded as long.
	err = s.with(ctx, func(parent Key) (err error) {
		object, err := s.loadUnder(ctx, parent, blob)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		defer func() { err = errors.Join(err, s.tpm.flush(ctx, object.handle)) }()
		secret, err = s.open(ctx, parent, object, policy)
		return err
	})
	if err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// open tries again when a PCR was extended meanwhile, be it one that the policy
// does not name: a running system extends some all the time.
func (s *Storage) open(ctx context.Context, parent, object Key, policy SealPolicy) (secret []byte, err error) {
	if len(policy.States) == 0 {
		return s.unseal(ctx, object, s.private(parent, tpm2.AESEncryption(128, tpm2.EncryptOut)))
	}
	for range 5 {
		secret, err = s.openInState(ctx, parent, object, policy)
		if !errors.Is(err, ErrPCRMoved) {
			break
		}
	}
	return secret, err
}

func (s *Storage) openInState(ctx context.Context, parent, object Key, policy SealPolicy) (secret []byte, err error) {
	// The closer of go-tpm is not used: it would fail with a context that is over.
	session, _, err := tpm2.PolicySession(s.tpm.in(ctx), tpm2.TPMAlgSHA256, 16,
		tpm2.Salted(parent.handle, parent.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return nil, fmt.Errorf("start session: %w", storageError(err))
	}
	defer func() { err = errors.Join(err, s.tpm.flush(ctx, session.Handle())) }()
	if err := s.satisfy(ctx, session, policy); err != nil {
		return nil, err
	}
	return s.unseal(ctx, object, session)
}

func (s *Storage) satisfy(ctx context.Context, session tpm2.Session, policy SealPolicy) error {
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: policy.selection()}).Execute(s.tpm.in(ctx)); err != nil {
		return fmt.Errorf("policy PCR: %w", err)
	}
	if len(policy.States) == 1 {
		return nil
	}
	branches, err := policy.branches()
	if err != nil {
		return err
	}
	_, err = tpm2.PolicyOr{PolicySession: session.Handle(), PHashList: tpm2.TPMLDigest{Digests: branches}}.Execute(s.tpm.in(ctx))
	if errors.Is(err, tpm2.TPMRCValue) {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return err
}

func (s *Storage) unseal(ctx context.Context, object Key, session tpm2.Session) ([]byte, error) {
	response, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: object.handle, Name: object.name, Auth: session},
	}.Execute(s.tpm.in(ctx))
	switch {
	case errors.Is(err, tpm2.TPMRCPolicyFail):
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	case errors.Is(err, tpm2.TPMRCPCRChanged):
		return nil, fmt.Errorf("%w: %w", ErrPCRMoved, err)
	case err != nil:
		return nil, storageError(err)
	}
	return response.OutData.Buffer, nil
}
