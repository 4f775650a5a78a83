// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// maxMoves is how often PCRs may change between being read and being quoted.
const maxMoves = 5

// signMeasured has the TPM quote PCR values that are sent along. Between reading
// and quoting a PCR can be extended: then both are done again.
func (p *Prover) signMeasured(ctx context.Context, ak tpm.Key, binding [sha256.Size]byte, selection attest.Selection, login *attest.LoginRequest) error {
	for range maxMoves {
		values, digest, err := p.measure(ctx, selection)
		if err != nil {
			return err
		}
		if err := p.sign(ctx, ak, binding, selection, login); err != nil {
			return err
		}
		quoted, err := pcrDigest(login.Quote)
		if err != nil {
			return err
		}
		if bytes.Equal(quoted, digest) {
			login.PCRs = values
			return nil
		}
	}
	return fmt.Errorf("quote what was read: %w", ErrPCRMoved)
}

// measure reads the selected PCRs in the selection's order, and computes what a
// quote says of these values: their SHA-256, in whatever bank they are, because
// the attestation key signs with SHA-256 (TPM 2.0 Part 3, 18.4).
func (p *Prover) measure(ctx context.Context, selection attest.Selection) (values [][]byte, digest []byte, err error) {
	read, err := p.tpm.ReadPCRs(ctx, selection.Algorithm(), selection.PCRs)
	if err != nil {
		return nil, nil, err
	}
	hash := sha256.New()
	for _, pcr := range selection.PCRs {
		values = append(values, read[pcr])
		hash.Write(read[pcr])
	}
	return values, hash.Sum(nil), nil
}

// pcrDigest is the digest in a quote that our own TPM made.
func pcrDigest(quote []byte) ([]byte, error) {
	attested, err := tpm2.Unmarshal[tpm2.TPMSAttest](quote)
	if err != nil {
		return nil, fmt.Errorf("read quote: %w", err)
	}
	info, err := attested.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("read quote: %w", err)
	}
	return info.PCRDigest.Buffer, nil
}
