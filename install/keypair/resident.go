// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"

	"funlab.casa/omen/tss2"
)

// SignFunc signs a SHA-256 digest with the key that is in the TPM and whose key
// file this is. The signature is ECDSA in ASN.1 (RFC 3279, section 2.2.3).
type SignFunc func(ctx context.Context, key, digest []byte) (signature []byte, err error)

// ErrNoTPM means that a key is in the TPM, and nobody here signs with it.
var ErrNoTPM = errors.New("the key is in the TPM, which is not at hand")

// parseResident reads the file of a key that is in the TPM.
func parseResident(text []byte) (*Resident, error) {
	key, err := tss2.Parse(text)
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	if text, err = key.PEM(); err != nil {
		return nil, err
	}
	return &Resident{public: public, text: text, ctx: context.Background()}, nil
}

// A Resident is a crypto.Signer that asks the TPM for each signature, so that a
// probe that needs none needs no TPM.
type Resident struct {
	public crypto.PublicKey
	text   []byte
	ctx    context.Context // of the probe: crypto.Signer has no place for one
	sign   SignFunc        // nil: nobody signs
}

// Lend has the key sign by sign, as long as ctx lasts.
func (k *Resident) Lend(ctx context.Context, sign SignFunc) { k.ctx, k.sign = ctx, sign }

// Public gives the public half.
func (k *Resident) Public() crypto.PublicKey { return k.public }

// Sign is of crypto.Signer.
func (k *Resident) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.sign == nil {
		return nil, ErrNoTPM
	}
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("a key in the TPM signs SHA-256, not %v", opts.HashFunc())
	}
	return k.sign(k.ctx, k.text, digest)
}
