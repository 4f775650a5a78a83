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
		SignHandle:     key.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection,
	}.Execute(t.in(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("quote: %w", slots(err))
	}
	if signature, err = marshalECDSA(response.Signature); err != nil {
		return nil, nil, fmt.Errorf("quote: %w", err)
	}
	return response.Quoted.Bytes(), signature, nil
}

// marshalECDSA gives the bytes of a TPMT_SIGNATURE of the one form we know:
// tpm2.Marshal panics on others.
func marshalECDSA(signature tpm2.TPMTSignature) ([]byte, error) {
	if _, err := signature.Signature.ECDSA(); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return tpm2.Marshal(signature), nil
}
