// SPDX-License-Identifier: Apache-2.0

package keypair

import (
	"fmt"
	"io"
	"log/slog"
)

// KeyPEM is a private key. It does not show itself in text of any kind.
type KeyPEM []byte

const redacted = "[private key]"

// String hides the key.
func (KeyPEM) String() string { return redacted }

// GoString hides the key.
func (KeyPEM) GoString() string { return redacted }

// Format hides the key from every verb of fmt.
func (KeyPEM) Format(state fmt.State, _ rune) {
	// A formatter has no way to report an error.
	_, _ = io.WriteString(state, redacted)
}

// LogValue hides the key.
func (KeyPEM) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoders of text, JSON among them.
func (KeyPEM) MarshalText() ([]byte, error) { return []byte(redacted), nil }
