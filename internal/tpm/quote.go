// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Quote has the key sign the selected PCRs and qualifyingData, 66 bytes at
// most (TPM 2.0 part 3, section 18.4). It returns the TPMS_ATTEST that was
// signed and the TPMT_SIGNATURE. It is exactly one command: the key's empty
// authValue goes as a password, and nothing is read back.
func (t *TPM) Quote(ctx context.Context, key Key, qualifyingData []byte, selection tpm2.TPMLPCRSelection) (quote, signature []byte, err error) {
	response, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: key.handle, Name: key.name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection,
	}.Execute(t.in(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("quote: %w", slots(err))
	}
	// What is marshalled again must be of the one form we know, because
	// tpm2.Marshal panics on others.
	if _, err := response.Signature.Signature.ECDSA(); err != nil {
		return nil, nil, fmt.Errorf("quote: signature: %w", err)
	}
	return response.Quoted.Bytes(), tpm2.Marshal(response.Signature), nil
}
