// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
)

// maxSealed bounds the text of a sealed key, in bytes: eight states of 24 PCRs of
// SHA-384 and two blobs.
const maxSealed = 64 << 10

// maxBlob bounds either half of the sealed object, in bytes.
const maxBlob = 1 << 10

// sealedVersion is of the file's form.
const sealedVersion = 1

// Policy says in which states of the machine a sealed key is given out.
type Policy = tpm.SealPolicy

// A sealedKey is the file that keeps a private key over a reboot. Nothing in it
// is a secret: the TPM that made it alone can open it, in one of its states.
type sealedKey struct {
	Version int           `json:"version"`
	Bank    tpm2.TPMAlgID `json:"bank,omitempty"`
	PCRs    []int         `json:"pcrs,omitempty"`
	States  [][][]byte    `json:"states,omitempty"`
	Public  []byte        `json:"public"`
	Private []byte        `json:"private"`
}

// Seal has the TPM keep the private key for the states of policy, and returns the
// file that it comes back from. It is for a key of [ModeSealed].
func (k *Key) Seal(ctx context.Context, storage Storage, policy Policy) ([]byte, error) {
	private, ok := k.signer().(*ecdsa.PrivateKey)
	if !ok || k.mode != ModeSealed {
		return nil, fmt.Errorf("seal key: a key of mode %q", k.mode)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	defer clear(der)
	blob, err := storage.Seal(ctx, der, policy)
	if err != nil {
		return nil, fmt.Errorf("seal key: %w", err)
	}
	sealed := sealedKey{
		Version: sealedVersion, Bank: policy.Bank, PCRs: policy.PCRs, States: policy.States, Public: blob.Public, Private: blob.Private,
	}
	return sealed.encode()
}

// errSealed says that a file is not a sealed key.
var errSealed = errors.New("not a sealed key as this program writes them")

func parseSealed(text []byte) (*sealedKey, error) {
	if len(text) > maxSealed {
		return nil, errSealed
	}
	var s sealedKey
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, errSealed
	}
	// What we write is the only form: no second key of a name, nothing beside it.
	if again, err := s.encode(); err != nil || !bytes.Equal(again, text) {
		return nil, errSealed
	}
	if s.Version != sealedVersion || len(s.Public) == 0 || len(s.Public) > maxBlob || len(s.Private) == 0 || len(s.Private) > maxBlob {
		return nil, errSealed
	}
	if err := s.policy().Check(); err != nil || len(s.PCRs) == 0 && s.Bank != 0 {
		return nil, errSealed
	}
	return &s, nil
}

func (s *sealedKey) encode() ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode sealed key: %w", err)
	}
	return append(text, '\n'), nil
}

func (s *sealedKey) policy() Policy { return Policy{Bank: s.Bank, PCRs: s.PCRs, States: s.States} }

// SealedPolicy reads the policy that a sealed key says it has. What the TPM holds
// it to is in the TPM.
func SealedPolicy(text []byte) (Policy, error) {
	s, err := parseSealed(text)
	if err != nil {
		return Policy{}, err
	}
	return s.policy(), nil
}

// Unseal gives the private key back that is for a certificate with this public
// key (DER SubjectPublicKeyInfo). Its error wraps tpm.ErrState or tpm.ErrStorage
// where one of them says it.
func Unseal(ctx context.Context, storage Storage, text, spki []byte) (PrivateKey, error) {
	der, err := unseal(ctx, storage, text)
	if err != nil {
		return PrivateKey{}, err
	}
	defer clear(der)
	private, err := parseSEC1(der)
	if err != nil {
		return PrivateKey{}, err
	}
	if public, err := x509.MarshalPKIXPublicKey(private.Public()); err != nil || !bytes.Equal(public, spki) {
		return PrivateKey{}, errors.New("the sealed key does not belong to the certificate")
	}
	file, err := pkcs8(private)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("encode private key: %w", err)
	}
	return PrivateKey{pem: func() []byte { return file }}, nil
}

// parseSEC1 reads what Seal sealed. The parser's error, which describes bytes of
// the key, is not told.
func parseSEC1(der []byte) (*ecdsa.PrivateKey, error) {
	private, err := x509.ParseECPrivateKey(der)
	if err != nil || private.Curve != elliptic.P256() {
		return nil, errSealed
	}
	again, err := x509.MarshalECPrivateKey(private)
	defer clear(again)
	if err != nil || !bytes.Equal(again, der) { // the parser takes trailing bytes
		return nil, errSealed
	}
	return private, nil
}

func unseal(ctx context.Context, storage Storage, text []byte) ([]byte, error) {
	s, err := parseSealed(text)
	if err != nil {
		return nil, err
	}
	return storage.Unseal(ctx, tpm.Blob{Public: s.Public, Private: s.Private}, s.policy())
}
