// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
)

// makeKeys makes a fresh key for each order. Where the TPM has another storage root
// than before, they are made under that one.
func (a *Agent) makeKeys(ctx context.Context, prover *host.Prover, orders []*order) error {
	return a.underRoot(ctx, prover, func() error {
		for _, o := range orders {
			if err := a.makeKey(ctx, prover, o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *Agent) makeKey(ctx context.Context, prover *host.Prover, o *order) (err error) {
	var storage issuer.Storage // nil: the key needs none
	if o.mode == issuer.ModeResident {
		if storage, err = prover.Storage(ctx); err != nil {
			return at(StepTPM, o.cert.Name, err)
		}
	}
	if o.key, err = issuer.NewKey(ctx, o.mode, storage); err != nil {
		return at(keyStep(err), o.cert.Name, err)
	}
	return nil
}

// underRoot does something with new keys, once more where it turns out that the TPM
// has another storage root than before: what that one kept is lost, and these keys
// are new.
func (a *Agent) underRoot(ctx context.Context, prover *host.Prover, do func() error) error {
	err := do()
	if !errors.Is(err, host.ErrStorage) || ctx.Err() != nil {
		return err
	}
	if err := a.doubt(ctx, prover, err); err != nil {
		return err
	}
	return do()
}

func (a *Agent) doubt(ctx context.Context, prover *host.Prover, cause error) error {
	a.log.Warn("the TPM has another storage root than before: it was cleared, or is another one", "cause", cause)
	return at(StepTPM, "", prover.DoubtStorage(ctx))
}

// keyStep tells a TPM that does not serve from a key that cannot be had.
func keyStep(err error) Step {
	for _, cause := range []error{host.ErrBusy, host.ErrNoAnswer, host.ErrAuth, host.ErrPCRMoved} {
		if errors.Is(err, cause) {
			return StepTPM
		}
	}
	return StepKey
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

// seal has the TPM keep the keys that are to come back after a reboot, all for the
// same states of the machine.
func (a *Agent) seal(ctx context.Context, prover *host.Prover, orders []*order) error {
	if !slices.ContainsFunc(orders, sealed) {
		return nil
	}
	policy, err := a.sealPolicy(ctx, prover)
	if err != nil {
		return at(StepTPM, "", err)
	}
	return a.underRoot(ctx, prover, func() error {
		for _, o := range orders {
			if err := a.sealOne(ctx, prover, o, policy); err != nil {
				return err
			}
		}
		return nil
	})
}

func sealed(o *order) bool { return o.mode == issuer.ModeSealed }

func (a *Agent) sealOne(ctx context.Context, prover *host.Prover, o *order, policy issuer.Policy) error {
	if !sealed(o) {
		return nil
	}
	storage, err := prover.Storage(ctx)
	if err != nil {
		return at(StepTPM, o.cert.Name, err)
	}
	if o.sealed, err = o.key.Seal(ctx, storage, policy); err != nil {
		return at(keyStep(err), o.cert.Name, err)
	}
	// A root that was looked up anew was vouched for by the key that has logged in.
	return at(StepTPM, "", prover.Accepted())
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
	end, err := a.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	prover, err := a.openTPM(ctx, nil)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	err = each(a.sets(), func(s set) error {
		opened, err := s.install.Unseal(ctx, func(ctx context.Context, text []byte, leaf *x509.Certificate) (install.KeyPEM, error) {
			return a.unsealKey(ctx, prover, text, leaf)
		})
		names = append(names, opened...)
		return err
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
