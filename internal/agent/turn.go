// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"funlab.casa/omen/attest/host"
)

// takeTurn waits until no other loop of this process has the TPM in use for long: a
// renewal, from its keys until they are served, or a login beside it. Other processes
// are none of its business: what they find is a TPM that is in use, or one that the
// kernel shares. The turn ends when end is called.
func (a *Agent) takeTurn(ctx context.Context) (end func(), err error) {
	if a.turn == nil {
		return func() {}, nil
	}
	if err := a.turn.Acquire(ctx, 1); err != nil {
		return nil, at(StepTPM, "", err)
	}
	return func() { a.turn.Release(1) }, nil
}

// hasTurn takes the turn where nobody has it.
func (a *Agent) hasTurn() (end func(), ok bool) {
	switch {
	case a.turn == nil:
		return func() {}, true
	case a.turn.TryAcquire(1):
		return func() { a.turn.Release(1) }, true
	}
	return nil, false
}

// openTPM opens the TPM for whoever has the turn. observe hears of each command; nil:
// nobody does.
func (a *Agent) openTPM(ctx context.Context, observe func(command string)) (*host.Prover, error) {
	config := a.tpm
	config.Observe = observe
	return host.Open(ctx, config)
}
