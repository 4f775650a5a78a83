// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tss2"
)

// residentKey makes a key that never leaves the TPM.
func residentKey(ctx context.Context, storage Storage) (*Key, error) {
	blob, err := storage.CreateKey(ctx, attest.KeyTemplate())
	if err != nil {
		return nil, err
	}
	file := tss2.Key{Parent: uint32(storage.Parent()), Public: blob.Public, Private: blob.Private}
	signer, err := NewSigners(storage).open(ctx, file)
	if err != nil {
		return nil, err
	}
	text, err := file.PEM()
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

// Signers opens keys that are in one TPM. What it opens may be used concurrently:
// one signature is made at a time.
type Signers struct {
	mu      sync.Mutex
	storage Storage
}

// NewSigners uses storage, which nothing else may use as long as signers do.
func NewSigners(storage Storage) *Signers { return &Signers{storage: storage} }

// Open gives the signer of a key file that [Key.PEM] gave, for as long as ctx and
// the storage root last. It signs ECDSA over SHA-256 and nothing else, so a
// [crypto/tls.Certificate] of it has ECDSAWithP256AndSHA256 alone in its
// SupportedSignatureAlgorithms. The TPM is asked when the first signature is made;
// a key of another storage root is tpm.ErrStorage then.
func (s *Signers) Open(ctx context.Context, text []byte) (crypto.Signer, error) {
	file, err := tss2.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	// A machine that gets the storage root's handle later, or loses it, may have the
	// same key by its other name: the TPM says.
	if parent := tpm2.TPMHandle(file.Parent); parent != tpm.SRKHandle && parent != tpm2.TPMRHOwner {
		return nil, fmt.Errorf("open key: its parent 0x%08x is not the standard storage root: %w", file.Parent, tpm.ErrStorage)
	}
	signer, err := s.open(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	return signer, nil
}

func (s *Signers) open(ctx context.Context, file tss2.Key) (crypto.Signer, error) {
	public, err := ownKey(file)
	if err != nil {
		return nil, err
	}
	return &residentSigner{ctx: ctx, signers: s, blob: tpm.Blob{Public: file.Public, Private: file.Private}, public: public}, nil
}

// ownKey is the public key of a file that differs from our template in its point
// only.
func ownKey(file tss2.Key) (*ecdsa.PublicKey, error) {
	public, err := file.PublicKey()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	want, err := attest.KeyName(spki)
	if err != nil {
		return nil, err
	}
	digest := crypto.SHA256.New()
	digest.Write(file.Public)
	if !bytes.Equal(digest.Sum([]byte{0, byte(tpm2.TPMAlgSHA256)}), want) {
		return nil, errors.New("not a key as this program makes them")
	}
	return public, nil
}

// A residentSigner signs with a key in the TPM. It implements crypto.Signer, which
// has no place for a context.
type residentSigner struct {
	ctx     context.Context
	signers *Signers
	blob    tpm.Blob
	public  *ecdsa.PublicKey
}

// Public gives the *ecdsa.PublicKey.
func (s *residentSigner) Public() crypto.PublicKey { return s.public }

// Sign signs a SHA-256 digest (ECDSA, ASN.1 form of RFC 3279 section 2.2.3). The
// randomness is the TPM's own.
func (s *residentSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("a key in the TPM signs SHA-256 digests and nothing else")
	}
	s.signers.mu.Lock()
	defer s.signers.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	// To cut a command short is the end of the connection, which others use too.
	r, v, err := s.signers.storage.Sign(context.WithoutCancel(s.ctx), s.blob, digest)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, v})
}
