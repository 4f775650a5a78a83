// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/go-tpm/tpm2"
)

// An AuthValue is the authorisation value of a TPM hierarchy. The zero value is
// the empty one that most machines have. It does not print, log or serialise.
type AuthValue struct {
	value []byte
}

// maxAuthValue is the size of the largest digest of a TPM, which bounds an
// authValue (TPM 2.0 part 1, section 19.6.4.2).
const maxAuthValue = 64

// NewAuthValue takes the value as it was given to the TPM: at most 64 bytes,
// none of them zero (the TPM strips some and libraries others).
func NewAuthValue(value []byte) (AuthValue, error) {
	if len(value) > maxAuthValue {
		return AuthValue{}, fmt.Errorf("authorisation value of %d bytes, at most %d", len(value), maxAuthValue)
	}
	if bytes.IndexByte(value, 0) >= 0 {
		return AuthValue{}, errors.New("authorisation value with a zero byte")
	}
	return AuthValue{value: bytes.Clone(value)}, nil
}

const hidden = "[authorisation value]"

// String hides the value.
func (AuthValue) String() string { return hidden }

// GoString hides the value.
func (AuthValue) GoString() string { return hidden }

// Format hides the value from every verb.
func (AuthValue) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue hides the value.
func (AuthValue) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText fails: the value is never written anywhere.
func (AuthValue) MarshalText() ([]byte, error) {
	return nil, errors.New("an authorisation value is not written")
}

// session authorises one command. A value goes into an HMAC, so that it does
// not cross the bus; the empty one needs no session in the TPM.
func (a AuthValue) session() tpm2.Session {
	if len(a.value) == 0 {
		return tpm2.PasswordAuth(nil)
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(a.value))
}
