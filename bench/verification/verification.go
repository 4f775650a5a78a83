// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"context"
	"errors"
	"fmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/bench/proof"
)

// Measure takes every figure of this package, each ratio from so many pairs.
func Measure(ctx context.Context, pairs int) (figures map[string]float64, err error) {
	log, err := proof.UbuntuLog(ctx)
	if err != nil {
		return nil, err
	}
	machine, err := proof.Boot(log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, machine.Close()) }()
	figures = map[string]float64{}
	if err := firstLogin(ctx, machine, pairs, figures); err != nil {
		return nil, fmt.Errorf("first login: %w", err)
	}
	if err := renewal(ctx, machine, pairs, figures); err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	return figures, nil
}

func firstLogin(ctx context.Context, m *proof.Machine, pairs int, figures map[string]float64) error {
	p, err := m.First(ctx)
	if err != nil {
		return err
	}
	creation, err := m.Creation()
	if err != nil {
		return err
	}
	nonce := nonceOf(p)
	policy, err := policyFor(p)
	if err != nil {
		return err
	}
	ours := func() error { return omenFirst(p, policy) }
	for name, theirs := range map[string]func() error{
		"verify_login_over_goattestation": newGoAttestation(m, p, creation, nonce).verify,
		"verify_login_over_gotpmtools":    newGoTPMTools(m, p, nonce).verify,
	} {
		if figures[name], err = ratio(pairs, ours, theirs); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	bytes, err := allocated(ours)
	figures["verify_login_alloc_over_log"] = bytes / float64(len(m.Log))
	return err
}

// nonceOf is what the other verifiers take for the quote's nonce: our binding of
// the whole login.
func nonceOf(p *proof.Proof) []byte {
	b := attest.Binding{
		Kind: p.Challenge.Kind, Secret: p.Challenge.Secret,
		Audience: p.Login.Audience, Keys: p.Login.Keys, EventLogHash: [32]byte(p.Login.EventLogHash),
	}
	nonce := attest.QuoteBinding(b)
	return nonce[:]
}

func renewal(ctx context.Context, m *proof.Machine, pairs int, figures map[string]float64) error {
	p, err := m.Renewal(ctx)
	if err != nil {
		return err
	}
	bare, err := bareECDSA(p)
	if err != nil {
		return err
	}
	figures["verify_renewal_over_ecdsa"], err = ratio(pairs, func() error { return omenRenewal(p) }, bare)
	return err
}
