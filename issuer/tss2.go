// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"funlab.casa/omen/internal/tpm"
)

// tss2Label is the PEM label of a key that a TPM loads.
const tss2Label = "TSS2 PRIVATE KEY"

// loadableKey is id-loadablekey.
var loadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// maxBlob bounds either half of a key in a TSS2 file, in bytes.
const maxBlob = 1 << 10

// encodeTSS2 writes a TPMKey without its optional fields, which OpenSSL's provider
// of Debian 12 does not read (draft-bottomley-tpm2-keys, section 3): an empty
// authValue, the parent's handle, TPM2B_PUBLIC and TPM2B_PRIVATE.
func encodeTSS2(blob tpm.Blob, parent uint32) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(loadableKey)
		b.AddASN1(cryptobyte_asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		b.AddASN1Uint64(uint64(parent))
		b.AddASN1OctetString(sized(blob.Public))
		b.AddASN1OctetString(sized(blob.Private))
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode TSS2 key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: tss2Label, Bytes: der}), nil
}

// sized puts the size of a TPM2B in front.
func sized(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

// errTSS2 says nothing of the bytes: they may be of a private key.
var errTSS2 = errors.New("not a TSS2 key as this program writes them")

// decodeTSS2 reads what encodeTSS2 writes, and nothing else.
func decodeTSS2(der []byte) (blob tpm.Blob, parent uint32, err error) {
	input := cryptobyte.String(der)
	var key, auth, public, private cryptobyte.String
	var kind asn1.ObjectIdentifier
	var empty bool
	var handle uint64
	if !input.ReadASN1(&key, cryptobyte_asn1.SEQUENCE) || !input.Empty() ||
		!key.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(loadableKey) ||
		!key.ReadASN1(&auth, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) ||
		!auth.ReadASN1Boolean(&empty) || !empty || !auth.Empty() ||
		!key.ReadASN1Integer(&handle) || handle > 1<<32-1 ||
		!key.ReadASN1(&public, cryptobyte_asn1.OCTET_STRING) || !key.ReadASN1(&private, cryptobyte_asn1.OCTET_STRING) || !key.Empty() {
		return tpm.Blob{}, 0, errTSS2
	}
	if !unsized(public, &blob.Public) || !unsized(private, &blob.Private) {
		return tpm.Blob{}, 0, errTSS2
	}
	return blob, uint32(handle), nil
}

func unsized(s cryptobyte.String, out *[]byte) bool {
	var inner cryptobyte.String
	ok := s.ReadUint16LengthPrefixed(&inner) && s.Empty() && len(inner) > 0 && len(inner) <= maxBlob
	*out = inner
	return ok
}
