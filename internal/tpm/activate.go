// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A Credential is what TPM2_MakeCredential gave the server: the inside of a
// TPM2B_ID_OBJECT and of a TPM2B_ENCRYPTED_SECRET.
type Credential struct {
	Blob, Secret []byte
}

// ActivateCredential recovers the secret that a server wrapped for the key ak
// and the endorsement key ek (TPM 2.0 part 3, section 12.5).
//
// The endorsement key is authorised by its policy, TPM2_PolicySecret of the
// endorsement hierarchy, in a session that is salted to the key and encrypts
// the answer: the secret does not cross the bus. branches are the digests of
// TPM2_PolicyOR for templates whose policy ends in one (H-3); nil for the
// others (L-1, L-2). An authorisation by password is never tried: it is under
// dictionary-attack protection.
func (t *TPM) ActivateCredential(ctx context.Context, ak, ek Key, branches [][]byte, credential Credential) (secret []byte, err error) {
	// The closer of go-tpm is not used: it would fail with a context that is over.
	session, _, err := tpm2.PolicySession(t.in(ctx), ek.public.NameAlg, 16,
		tpm2.Salted(ek.handle, ek.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return nil, fmt.Errorf("activate credential: start session: %w", hint(err))
	}
	defer func() { err = errors.Join(err, t.flush(ctx, session.Handle())) }()
	if err = t.satisfy(t.in(ctx), session, branches); err != nil {
		return nil, fmt.Errorf("activate credential: %w", err)
	}
	response, err := tpm2.ActivateCredential{
		ActivateHandle: ak.auth(),
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: session},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential.Blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: credential.Secret},
	}.Execute(t.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("activate credential: %w", slots(err))
	}
	return response.CertInfo.Buffer, nil
}

// satisfy runs the endorsement key's policy (TCG EK Credential Profile 2.5,
// annex B: PolicyA, or PolicyB of which PolicyA is the first branch).
func (t *TPM) satisfy(tpm transport.TPM, session tpm2.Session, branches [][]byte) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    t.endorsement(),
		PolicySession: session.Handle(),
		NonceTPM:      session.NonceTPM(),
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("policy secret: %w", hint(err))
	}
	if branches == nil {
		return nil
	}
	var list tpm2.TPMLDigest
	for _, branch := range branches {
		list.Digests = append(list.Digests, tpm2.TPM2BDigest{Buffer: branch})
	}
	if _, err := (tpm2.PolicyOr{PolicySession: session.Handle(), PHashList: list}).Execute(tpm); err != nil {
		return fmt.Errorf("policy or: %w", err)
	}
	return nil
}
