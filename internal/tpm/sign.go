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
// than revision 1.38). The key stays loaded until another one is used, a secret is
// sealed or unsealed, or Close.
func (s *Storage) CreateKey(ctx context.Context, template tpm2.TPMTPublic) (blob Blob, err error) {
	if err := s.release(ctx); err != nil {
		return Blob{}, err
	}
	err = s.with(ctx, func(parent Key) (err error) {
		blob, err = s.createLoaded(ctx, parent, template)
		if errors.Is(err, tpm2.TPMRCCommandCode) {
			blob, err = s.createThenLoad(ctx, parent, template)
		}
		return err
	})
	if err != nil {
		return Blob{}, fmt.Errorf("create key: %w", err)
	}
	return blob, nil
}

func (s *Storage) createLoaded(ctx context.Context, parent Key, template tpm2.TPMTPublic) (Blob, error) {
	response, err := tpm2.CreateLoaded{
		ParentHandle: parent.auth(),
		InPublic:     tpm2.New2BTemplate(&template),
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, storageError(err)
	}
	blob := Blob{Public: response.OutPublic.Bytes(), Private: response.OutPrivate.Buffer}
	key, err := Key{handle: response.ObjectHandle}.withPublic(response.OutPublic)
	if err != nil {
		return Blob{}, errors.Join(err, s.tpm.flush(ctx, response.ObjectHandle))
	}
	s.held = &heldKey{key: key, private: blob.Private}
	return blob, nil
}

func (s *Storage) createThenLoad(ctx context.Context, parent Key, template tpm2.TPMTPublic) (Blob, error) {
	response, err := tpm2.Create{ParentHandle: parent.auth(), InPublic: tpm2.New2B(template)}.Execute(s.tpm.in(ctx))
	if err != nil {
		return Blob{}, storageError(err)
	}
	blob := Blob{Public: response.OutPublic.Bytes(), Private: response.OutPrivate.Buffer}
	key, err := s.loadUnder(ctx, parent, blob)
	if err != nil {
		return Blob{}, err
	}
	s.held = &heldKey{key: key, private: blob.Private}
	return blob, nil
}

// auth authorises the key by its authValue, which is empty.
func (k Key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
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
		return nil, nil, fmt.Errorf("sign: %w", slots(err))
	}
	signature, err := response.Signature.Signature.ECDSA()
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	return new(big.Int).SetBytes(signature.SignatureR.Buffer), new(big.Int).SetBytes(signature.SignatureS.Buffer), nil
}

// Certify has ak say that the key of blob is in this TPM (TPM 2.0 part 3,
// section 18.2). It returns the TPMS_ATTEST that was signed and the
// TPMT_SIGNATURE. A key that lies under another storage root is ErrStorage.
func (s *Storage) Certify(ctx context.Context, ak Key, blob Blob, qualifyingData []byte) (info, signature []byte, err error) {
	key, err := s.use(ctx, blob)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	said, signature, err := s.certify(ctx, ak, key, qualifyingData)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	if s.root != nil && !says(said, key, key.under(s.root.qualified(tpm2.TPMRHOwner)), qualifyingData) {
		return nil, nil, fmt.Errorf("certify: the key is not where it was made: %w", ErrStorage)
	}
	return said.Bytes(), signature, nil
}

// CertifyRoot has ak say which key the storage root is: the standard one, as a
// primary key of the owner hierarchy of the TPM that ak is in. It returns what was
// signed and the signature, which it leaves to the caller to verify; then nobody
// between this program and the TPM has put a key of his own in its place. Root is
// what was certified.
func (s *Storage) CertifyRoot(ctx context.Context, ak Key, qualifyingData []byte) (info, signature []byte, err error) {
	said, signature, err := s.certifyRoot(ctx, ak, qualifyingData)
	if s.persistent && (errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)) {
		// Whoever keeps it there gave it a password. The same key made anew has none.
		s.persistent = false
		said, signature, err = s.certifyRoot(ctx, ak, qualifyingData)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certify storage root key: %w", err)
	}
	return said.Bytes(), signature, nil
}

func (s *Storage) certifyRoot(ctx context.Context, ak Key, qualifyingData []byte) (said *tpm2.TPM2BAttest, signature []byte, err error) {
	err = s.with(ctx, func(root Key) (err error) {
		if said, signature, err = s.certify(ctx, ak, root, qualifyingData); err != nil {
			return err
		}
		if !says(said, root, root.qualified(tpm2.TPMRHOwner), qualifyingData) {
			return errors.New("it is about another key")
		}
		return nil
	})
	return said, signature, err
}

func (s *Storage) certify(ctx context.Context, ak, key Key, qualifyingData []byte) (said *tpm2.TPM2BAttest, signature []byte, err error) {
	response, err := tpm2.Certify{
		ObjectHandle:   key.auth(),
		SignHandle:     ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(s.tpm.in(ctx))
	if err != nil {
		return nil, nil, slots(err)
	}
	signature, err = marshalECDSA(response.Signature)
	return &response.CertifyInfo, signature, err
}

// says reports whether a certification is of this key, as the one with this
// Qualified Name.
func says(said *tpm2.TPM2BAttest, key Key, qualified, qualifyingData []byte) bool {
	attested, err := said.Contents()
	if err != nil || attested.Magic != tpm2.TPMGeneratedValue || !bytes.Equal(attested.ExtraData.Buffer, qualifyingData) {
		return false
	}
	certified, err := attested.Attested.Certify()
	return err == nil && bytes.Equal(certified.Name.Buffer, key.name.Buffer) && bytes.Equal(certified.QualifiedName.Buffer, qualified)
}
