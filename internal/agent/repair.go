// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/issuer"
)

// openSealed gives a sealed key back for a set that is carried over or gone back
// to. The TPM is opened for this one key; who installs has the turn.
func (a *Agent) openSealed(ctx context.Context, text []byte, leaf *x509.Certificate) (key install.KeyPEM, err error) {
	prover, err := a.openTPM(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prover.Close()) }()
	return a.unsealKey(ctx, prover, text, leaf)
}

func (a *Agent) unsealKey(ctx context.Context, prover *host.Prover, text []byte, leaf *x509.Certificate) (install.KeyPEM, error) {
	storage, err := prover.RecordedStorage(ctx)
	if err != nil {
		return nil, err
	}
	key, err := issuer.Unseal(ctx, storage, text, leaf.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, a.explainState(ctx, prover, text, err)
	}
	return key.Reveal(), nil
}

// withSpoiled adds the certificates that cannot be taken over from the set before
// to those to renew, and says why.
func (a *Agent) withSpoiled(ctx context.Context, orders []*order) ([]*order, error) {
	var names []string
	for _, s := range a.sets() {
		carried := slices.DeleteFunc(a.emptyItems(s), func(item install.Item) bool {
			return slices.ContainsFunc(orders, func(o *order) bool { return o.cert.Name == item.Name })
		})
		spoiled, err := s.install.Spoiled(ctx, carried)
		if err != nil {
			return orders, at(StepInstall, "", err)
		}
		for _, one := range spoiled {
			a.log.Warn("a certificate is issued anew too", "certificate", one.Certificate, "cause", one.Err)
			names = append(names, one.Certificate)
		}
	}
	if len(names) == 0 {
		return orders, nil
	}
	more, err := a.orders(names)
	return append(orders, more...), err
}

// unsealed reports that no sealed key of the current sets is lost. Where nothing is
// installed none is missing; where the TPM or the sets cannot be asked just now nothing
// is known, and it is tried again soon: a login would not help.
func (a *Agent) unsealed(ctx context.Context) bool {
	names, err := a.Unseal(ctx)
	if len(names) > 0 {
		a.log.Info("keys unsealed", "certificates", names)
	}
	a.soon = notYet(ctx, err)
	switch {
	case err == nil || errors.Is(err, install.ErrNotInstalled):
		return true
	case a.soon:
		a.log.Warn("keys do not come back yet", "error", err)
		return true
	}
	a.log.Warn("keys do not come back; a fresh login decides", "error", err)
	return false
}

// notYet reports that somebody is in the way of an unsealing, who will go away.
func notYet(ctx context.Context, err error) bool {
	for _, cause := range []error{host.ErrAbsent, host.ErrBusy, host.ErrDenied, host.ErrNoAnswer, host.ErrPCRMoved, install.ErrBusy} {
		if errors.Is(err, cause) {
			return ctx.Err() == nil
		}
	}
	return false
}

// spoiled mends what can be mended of the installed files, also keys that are not
// where their services read them, and names the certificates that only a renewal mends.
func (a *Agent) spoiled(ctx context.Context) (names []string) {
	var keyless []string
	for _, s := range a.sets() {
		names = append(names, a.spoiledIn(s)...)
		keyless = append(keyless, s.keyless()...)
	}
	if len(keyless) > 0 && !a.unsealed(ctx) {
		names = append(names, keyless...)
	}
	return names
}

// spoiledIn mends a set and names its certificates that cannot be carried over.
func (a *Agent) spoiledIn(s set) (names []string) {
	damage, err := s.install.Repair()
	if err != nil {
		if !errors.Is(err, install.ErrBusy) {
			a.log.Warn("installed files are not looked after", "set", s.name, "error", err)
		}
		return nil
	}
	for _, d := range damage {
		a.log.Warn("somebody has changed an installed file", "file", d.File, "harm", string(d.Harm), "mended", d.Mended)
		for _, name := range s.names() {
			if d.Spoils(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// keyless are the certificates of a set whose sealed key is not given out, or is
// another one by now.
func (s set) keyless() (names []string) {
	current, err := s.install.Current()
	if err != nil {
		return nil // nothing is installed; or the renewal will say what is wrong
	}
	for _, name := range s.names() {
		if current.Keyless(name) {
			names = append(names, name)
		}
	}
	return names
}
