// SPDX-License-Identifier: Apache-2.0

package verification

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/bench/proof"
)

// bareECDSA is one verification of the quote's signature with all else done
// beforehand: no renewal can cost less.
func bareECDSA(p *proof.Proof) (func() error, error) {
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](p.Login.Signature)
	if err != nil {
		return nil, err
	}
	parts, err := signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	r, s := new(big.Int).SetBytes(parts.SignatureR.Buffer), new(big.Int).SetBytes(parts.SignatureS.Buffer)
	digest := sha256.Sum256(p.Login.Quote)
	key := p.Challenge.AK.Key()
	return func() error {
		if !ecdsa.Verify(key, digest[:], r, s) {
			return errors.New("the quote's signature does not verify")
		}
		return nil
	}, nil
}
