// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Credential is TPM2_MakeCredential (TPM 2.0 Part 3, 12.6) in software: it wraps
// secret, at most 32 bytes, so that only the TPM with this EK can unwrap it, and
// only if the AK is loaded in that same TPM.
func Credential(random io.Reader, ek *EK, ak *attest.AK, secret []byte) (*attest.Credential, error) {
	key, err := tpm2.ImportEncapsulationKey(ek.Public)
	if err != nil {
		return nil, fmt.Errorf("import EK: %w", err)
	}
	blob, wrapped, err := tpm2.CreateCredential(random, key, ak.Name(), secret)
	if err != nil {
		return nil, fmt.Errorf("make credential: %w", err)
	}
	return &attest.Credential{Blob: blob, Secret: wrapped}, nil
}
