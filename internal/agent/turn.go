// SPDX-License-Identifier: Apache-2.0

package agent

import "context"

// takeTurn waits until no other loop of this process has the TPM in use for long: a
// renewal or a login beside it. Other processes are none of its business: what they
// find is a TPM that is in use, or one that the kernel shares.
func (a *Agent) takeTurn(ctx context.Context) error {
	if a.turn == nil {
		return nil
	}
	return at(StepTPM, "", a.turn.Acquire(ctx, 1))
}

func (a *Agent) endTurn() {
	if a.turn != nil {
		a.turn.Release(1)
	}
}
