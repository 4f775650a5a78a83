// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto"
	"errors"

	"funlab.casa/omen/issuer"
)

// signResident signs for a probe with a key in the TPM. The TPM is opened for this
// one signature: the service that is asked may need it in between. Who installs
// has the turn.
func (a *Agent) signResident(ctx context.Context, key, digest []byte) (signature []byte, err error) {
	prover, err := a.openTPM(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prover.Close()) }()
	storage, err := prover.Storage(ctx)
	if err != nil {
		return nil, err
	}
	signer, err := issuer.NewSigners(storage).Open(ctx, key)
	if err != nil {
		return nil, err
	}
	return signer.Sign(nil, digest, crypto.SHA256)
}
