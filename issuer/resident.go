// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// residentKey makes a key that never leaves the TPM.
func residentKey(ctx context.Context, storage Storage) (*Key, error) {
	blob, err := storage.CreateKey(ctx, attest.KeyTemplate())
	if err != nil {
		return nil, err
	}
	signer, err := newTPMSigner(ctx, storage, blob)
	if err != nil {
		return nil, err
	}
	text, err := encodeTSS2(blob, uint32(storage.Parent()))
	if err != nil {
		return nil, err
	}
	key, err := newKey(ModeResident, signer)
	if err != nil {
		return nil, err
	}
	key.resident, key.text = &blob, func() ([]byte, error) { return text, nil }
	return key, nil
}

// A tpmSigner signs with a key in the TPM. It implements crypto.Signer, which has
// no place for a context.
type tpmSigner struct {
	ctx     context.Context
	storage Storage
	blob    tpm.Blob
	public  *ecdsa.PublicKey
}

func newTPMSigner(ctx context.Context, storage Storage, blob tpm.Blob) (*tpmSigner, error) {
	public, err := publicKey(blob.Public)
	if err != nil {
		return nil, err
	}
	return &tpmSigner{ctx: ctx, storage: storage, blob: blob, public: public}, nil
}

// publicKey is the key of a TPMT_PUBLIC that our own TPM gave.
func publicKey(public []byte) (*ecdsa.PublicKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, fmt.Errorf("read public area: %w", err)
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, fmt.Errorf("read public area: %w", err)
	}
	if ec, ok := key.(*ecdsa.PublicKey); ok {
		return ec, nil
	}
	return nil, errors.New("read public area: not an EC key")
}

// Public gives the public key.
func (s *tpmSigner) Public() crypto.PublicKey { return s.public }

// Sign signs a SHA-256 digest.
func (s *tpmSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("a key in the TPM signs SHA-256, not %v", opts.HashFunc())
	}
	r, v, err := s.storage.Sign(s.ctx, s.blob, digest)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, v})
}

// OpenResident gives the signer of a TSS2 key file that NewKey's [Key.PEM] gave,
// for as long as storage and ctx last.
func OpenResident(ctx context.Context, storage Storage, text []byte) (crypto.Signer, error) {
	block, err := onlyBlock(text, tss2Label)
	if err != nil {
		return nil, err
	}
	blob, parent, err := decodeTSS2(block)
	if err != nil {
		return nil, err
	}
	if parent != uint32(storage.Parent()) {
		return nil, fmt.Errorf("the key's parent is 0x%08x, this TPM's storage root is 0x%08x: %w", parent, uint32(storage.Parent()), tpm.ErrStorage)
	}
	return newTPMSigner(ctx, storage, blob)
}
