// SPDX-License-Identifier: Apache-2.0

package tss2

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Label is the PEM label of a key that a TPM loads.
const Label = "TSS2 PRIVATE KEY"

const (
	maxText = 8 << 10 // of a file, in bytes; one of P-256 has about 420
	maxHalf = 1 << 10 // of either half, in bytes
)

// A Key is what a TPM loads a key from. It holds no secret that another TPM could
// use.
type Key struct {
	// Parent is the handle of the parent key, or of the hierarchy under whose
	// standard primary key this one was made (TPM 2.0 part 2, section 7).
	Parent uint32
	// Public is a TPMT_PUBLIC (TPM 2.0 part 2, section 12.2.4).
	Public []byte
	// Private is the inside of a TPM2B_PRIVATE (TPM 2.0 part 2, section 12.3.7).
	Private []byte
}

// loadableKey is id-loadablekey, the type of a key for TPM2_Load.
var loadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// emptyAuth is the tag of the field that says that the key has no password.
var emptyAuth = cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()

// errKey says nothing of what was read.
var errKey = errors.New("not a TSS2 private key without password and optional fields")

// Is says whether text looks like such a file, by its label alone.
func Is(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN "+Label+"-----"))
}

// PEM writes the key file: type, emptyAuth, parent, public and private half
// (draft-bottomley-tpm2-keys, section 3.1).
func (k Key) PEM() ([]byte, error) {
	for _, half := range [][]byte{k.Public, k.Private} {
		if len(half) == 0 || len(half) > maxHalf {
			return nil, fmt.Errorf("encode TSS2 key: a half of %d bytes, want 1 to %d", len(half), maxHalf)
		}
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(loadableKey)
		b.AddASN1(emptyAuth, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		b.AddASN1Uint64(uint64(k.Parent))
		b.AddASN1OctetString(sized(k.Public))
		b.AddASN1OctetString(sized(k.Private))
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode TSS2 key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: Label, Bytes: der}), nil
}

// sized makes a TPM2B: its size goes in front.
func sized(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

// Parse reads one key file and nothing beside it.
func Parse(text []byte) (Key, error) {
	text = bytes.TrimSpace(text)
	if len(text) > maxText || !Is(text) {
		return Key{}, errKey
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != Label || len(block.Headers) > 0 || len(rest) > 0 {
		return Key{}, errKey
	}
	key, err := parseDER(block.Bytes)
	if err != nil {
		return Key{}, err
	}
	// pem.Decode steps over blocks that it cannot read, and over odd line breaks.
	if again, err := key.PEM(); err != nil || !bytes.Equal(bytes.TrimSpace(again), text) {
		return Key{}, errKey
	}
	return key, nil
}

func parseDER(der []byte) (key Key, err error) {
	input := cryptobyte.String(der)
	var fields, auth, public, private cryptobyte.String
	var kind asn1.ObjectIdentifier
	var empty bool
	ok := input.ReadASN1(&fields, cryptobyte_asn1.SEQUENCE) && input.Empty() &&
		fields.ReadASN1ObjectIdentifier(&kind) && kind.Equal(loadableKey) &&
		fields.ReadASN1(&auth, emptyAuth) && auth.ReadASN1Boolean(&empty) && empty && auth.Empty() &&
		fields.ReadASN1Integer(&key.Parent) &&
		fields.ReadASN1(&public, cryptobyte_asn1.OCTET_STRING) && unsized(public, &key.Public) &&
		fields.ReadASN1(&private, cryptobyte_asn1.OCTET_STRING) && unsized(private, &key.Private) &&
		fields.Empty()
	if !ok {
		return Key{}, errKey
	}
	return key, nil
}

func unsized(s cryptobyte.String, out *[]byte) bool {
	var inner cryptobyte.String
	ok := s.ReadUint16LengthPrefixed(&inner) && s.Empty() && len(inner) > 0 && len(inner) <= maxHalf
	*out = inner
	return ok
}
