// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// CreateKey makes a signing key from template under the storage root, by one
// command (TPM2_CreateLoaded, or TPM2_Create and TPM2_Load where the TPM is older
// than revision 1.38). The key stays loaded until another one is used or Close.
func (s *Storage) CreateKey(ctx context.Context, template tpm2.TPMTPublic) (Blob, error) {
	if err := s.release(ctx); err != nil {
		return Blob{}, err
	}
	var blob Blob
	err := s.with(ctx, func(parent Key) (err error) {
		blob, err = s.createLoaded(ctx, parent, template)
		if errors.Is(err, tpm2.TPMRCCommandCode) {
			blob, err = s.createThenLoad(ctx, parent, template)
		}
		return err
	})
	if err != nil {
		return Blob{}, fmt.Errorf("create key: %w", storageError(err))
	}
	return blob, nil
}

func (s *Storage) createLoaded(ctx context.Context, parent Key, template tpm2.TPMTPublic) (Blob, error) {
	response, err := tpm2.CreateLoaded{
		ParentHandle: parent.auth(),
		InPublic:     tpm2.New2BTemplate(&template),
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, err
	}
	blob := Blob{Public: response.OutPublic.Bytes(), Private: response.OutPrivate.Buffer}
	return blob, s.hold(ctx, response.ObjectHandle, blob)
}

func (s *Storage) createThenLoad(ctx context.Context, parent Key, template tpm2.TPMTPublic) (Blob, error) {
	response, err := tpm2.Create{ParentHandle: parent.auth(), InPublic: tpm2.New2B(template)}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, err
	}
	blob := Blob{Public: response.OutPublic.Bytes(), Private: response.OutPrivate.Buffer}
	loaded, err := tpm2.Load{ParentHandle: parent.auth(), InPrivate: response.OutPrivate, InPublic: response.OutPublic}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, err
	}
	return blob, s.hold(ctx, loaded.ObjectHandle, blob)
}

func (k Key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

// hold keeps a loaded object for the next use.
func (s *Storage) hold(ctx context.Context, handle tpm2.TPMHandle, blob Blob) error {
	key, err := Key{handle: handle}.withPublic(tpm2.BytesAs2B[tpm2.TPMTPublic](blob.Public))
	if err != nil {
		return errors.Join(err, s.tpm.flush(ctx, handle))
	}
	s.held = &heldKey{key: key, private: blob.Private}
	return nil
}

// release flushes the key that is held, if one is.
func (s *Storage) release(ctx context.Context) error {
	if s.held == nil {
		return nil
	}
	handle := s.held.key.handle
	s.held = nil
	return s.tpm.flush(ctx, handle)
}

// use gives the loaded key of blob, which is then held.
func (s *Storage) use(ctx context.Context, blob Blob) (Key, error) {
	if s.held != nil && bytes.Equal(s.held.private, blob.Private) && bytes.Equal(s.held.key.raw, blob.Public) {
		return s.held.key, nil
	}
	if err := s.release(ctx); err != nil {
		return Key{}, err
	}
	key, err := s.load(ctx, blob)
	if err != nil {
		return Key{}, err
	}
	s.held = &heldKey{key: key, private: blob.Private}
	return key, nil
}

// Sign signs a SHA-256 digest with ECDSA (TPM 2.0 part 3, section 20.2).
func (s *Storage) Sign(ctx context.Context, blob Blob, digest []byte) (r, v *big.Int, err error) {
	key, err := s.use(ctx, blob)
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	response, err := tpm2.Sign{
		KeyHandle:  key.auth(),
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", hintOf(tpm2.TPMRHOwner, err))
	}
	signature, err := response.Signature.Signature.ECDSA()
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	return new(big.Int).SetBytes(signature.SignatureR.Buffer), new(big.Int).SetBytes(signature.SignatureS.Buffer), nil
}

// Certify has ak say that the key of blob is in this TPM (TPM 2.0 part 3,
// section 18.2). It returns the TPMS_ATTEST that was signed and the
// TPMT_SIGNATURE.
func (s *Storage) Certify(ctx context.Context, ak Key, blob Blob, qualifyingData []byte) (info, signature []byte, err error) {
	key, err := s.use(ctx, blob)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	response, err := tpm2.Certify{
		ObjectHandle:   key.auth(),
		SignHandle:     ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", hint(err))
	}
	if _, err := response.Signature.Signature.ECDSA(); err != nil {
		return nil, nil, fmt.Errorf("certify: signature: %w", err)
	}
	return response.CertifyInfo.Bytes(), tpm2.Marshal(response.Signature), nil
}
