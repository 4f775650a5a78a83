// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	tokenMark = "[token]"
	maxToken  = 8 << 10 // a batch token carries its metadata and is about 1 KiB
)

// Token is a secret of OpenBao. It prints and serialises as "[token]", also as
// an unexported field of what is printed: package fmt follows pointers there,
// but shows of a function only its address.
type Token struct{ reveal func() string }

// newToken takes a token from a reply.
func newToken(text string) (Token, error) {
	if text == "" || len(text) > maxToken {
		return Token{}, errors.New("no token in the reply")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Token{}, errors.New("token with other than printable ASCII")
	}
	return Token{reveal: func() string { return text }}, nil
}

// header is the value of the request header; "" for the zero Token.
func (t Token) header() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// Reveal gives the token itself, for the one place that hands it on; nil for the zero
// Token.
func (t Token) Reveal() []byte {
	if t.reveal == nil {
		return nil
	}
	return []byte(t.reveal())
}

// Format implements fmt.Formatter for every verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, tokenMark) }

// String returns a placeholder.
func (t Token) String() string { return tokenMark }

// GoString returns a placeholder.
func (t Token) GoString() string { return tokenMark }

// LogValue returns a placeholder.
func (t Token) LogValue() slog.Value { return slog.StringValue(tokenMark) }

// MarshalText returns a placeholder, for JSON and every other text encoding.
func (t Token) MarshalText() ([]byte, error) { return []byte(tokenMark), nil }
