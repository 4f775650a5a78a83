// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
)

// makeKeys makes a fresh key for each order.
func (a *Agent) makeKeys(ctx context.Context, prover *host.Prover, orders []*order) error {
	for _, o := range orders {
		storage, err := a.storageFor(ctx, prover, o.mode)
		if err != nil {
			return at(StepTPM, o.cert.Name, err)
		}
		if o.key, err = issuer.NewKey(ctx, o.mode, storage); err != nil {
			return at(StepKey, o.cert.Name, err)
		}
	}
	return nil
}

// storageFor gives the TPM's storage root where a key of this mode needs it.
func (a *Agent) storageFor(ctx context.Context, prover *host.Prover, mode issuer.Mode) (issuer.Storage, error) {
	if mode == issuer.ModeFile {
		return nil, nil
	}
	storage, err := prover.Storage(ctx)
	if err != nil {
		return nil, err
	}
	return storage, nil
}

// residents lists the keys that the TPM can vouch for.
func residents(orders []*order) map[string]tpm.Blob {
	keys := map[string]tpm.Blob{}
	for _, o := range orders {
		if blob := o.key.Resident(); blob != nil {
			keys[string(o.key.SPKI())] = *blob
		}
	}
	return keys
}

// seal has the TPM keep the keys that are to come back after a reboot. A storage
// root that is not the one on record any more is looked up anew: what it kept is
// lost with it, and these keys are new.
func (a *Agent) seal(ctx context.Context, prover *host.Prover, orders []*order) error {
	for _, o := range orders {
		if o.mode != issuer.ModeSealed {
			continue
		}
		err := a.sealOne(ctx, prover, o)
		if errors.Is(err, host.ErrStorage) {
			a.log.Warn("the TPM has another storage root than before: it was cleared, or is another one", "cause", err)
			if err = prover.DoubtStorage(ctx); err == nil {
				err = a.sealOne(ctx, prover, o)
			}
		}
		if err != nil {
			return at(StepKey, o.cert.Name, err)
		}
	}
	return nil
}

func (a *Agent) sealOne(ctx context.Context, prover *host.Prover, o *order) error {
	storage, err := prover.Storage(ctx)
	if err != nil {
		return err
	}
	policy, err := a.sealPolicy(ctx, prover)
	if err != nil {
		return err
	}
	o.sealed, err = o.key.Seal(ctx, storage, policy)
	return err
}

// sealPolicy is the present state of the machine, and those that are announced.
func (a *Agent) sealPolicy(ctx context.Context, prover *host.Prover) (issuer.Policy, error) {
	seal := a.config.Seal
	if seal.Policy == "none" {
		return issuer.Policy{}, nil
	}
	present, err := prover.Present(ctx, seal.Bank, seal.PCRs)
	return a.withAnnounced(present), err
}

// Unseal puts the keys of the current set where their services read them, which a
// reboot took away. It needs no network. It returns the names of the certificates.
func (a *Agent) Unseal(ctx context.Context) (names []string, err error) {
	prover, err := host.Open(ctx, a.tpm)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	names, err = a.install.Unseal(ctx, func(ctx context.Context, text []byte, leaf *x509.Certificate) (install.KeyPEM, error) {
		storage, err := prover.Storage(ctx)
		if err != nil {
			return nil, err
		}
		key, err := issuer.Unseal(ctx, storage, text, leaf.RawSubjectPublicKeyInfo)
		if err != nil {
			return nil, a.explainState(ctx, prover, text, err)
		}
		return key.Reveal(), nil
	})
	return names, at(StepKey, "", err)
}

// explainState says of a machine in another state which PCRs have moved.
func (a *Agent) explainState(ctx context.Context, prover *host.Prover, text []byte, cause error) error {
	if !errors.Is(cause, host.ErrState) {
		return cause
	}
	policy, err := issuer.SealedPolicy(text)
	if err != nil {
		return errors.Join(cause, err)
	}
	moved, err := prover.Moved(ctx, policy)
	if err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("PCR %v moved since the key was sealed: %w", moved, cause)
}
