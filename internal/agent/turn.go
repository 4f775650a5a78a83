// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"funlab.casa/omen/attest/host"
)

// A turn is the TPM, open to one loop of this process.
type turn struct {
	*host.Prover
	end func()
}

// openTPM opens the TPM when no other loop of this process has it open: a renewal, a
// login beside it, a look. Other processes are none of its business: what they find is
// a TPM that is in use, or one that the kernel shares. observe hears of each command; nil:
// nobody does.
func (a *Agent) openTPM(ctx context.Context, observe func(command string)) (*turn, error) {
	end := func() {}
	if a.tpmTurn != nil {
		if err := a.tpmTurn.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		end = func() { a.tpmTurn.Release(1) }
	}
	config := a.tpm
	config.Observe = observe
	prover, err := host.Open(ctx, config)
	if err != nil {
		end()
		return nil, err
	}
	return &turn{prover, end}, nil
}

// Close ends the turn.
func (t *turn) Close() error {
	defer t.end()
	return t.Prover.Close()
}
