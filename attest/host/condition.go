// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"

	"funlab.casa/omen/internal/tpm"
)

// Condition is what can keep a TPM from serving.
type Condition = tpm.Condition

// Condition asks the TPM how it is. It authorises nothing, and so counts as no try.
func (p *Prover) Condition(ctx context.Context) (*Condition, error) { return p.tpm.Condition(ctx) }
