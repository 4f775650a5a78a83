// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
)

// Binding is all that one quote vouches for beside the PCRs.
type Binding struct {
	Kind         Kind
	Secret       []byte // S: unwrapped by TPM2_ActivateCredential, or the nonce
	Audience     string
	Keys         [][]byte          // DER SubjectPublicKeyInfo, ascending
	EventLogHash [sha256.Size]byte // zero when the firmware gives no log
	Ticket       Ticket            // nil without one
}

// absent stands for a part of the binding that is not there.
var absent [sha256.Size]byte

// QuoteBinding computes the qualifyingData of the quote: a hash of hashes, so
// that each part has one place and no two bindings share bytes. The hash of an
// absent part is 32 zero bytes.
func QuoteBinding(b Binding) [sha256.Size]byte {
	purpose := sha256.Sum256([]byte("omen/1/quote/" + string(b.Kind)))
	secret := sha256.Sum256(b.Secret)
	audience := sha256.Sum256([]byte(b.Audience))
	keys := hashKeys(b.Keys)
	ticket := absent
	if b.Ticket != nil {
		ticket = sha256.Sum256(b.Ticket)
	}
	parts := make([]byte, 0, 6*sha256.Size)
	for _, part := range [][sha256.Size]byte{purpose, secret, audience, keys, b.EventLogHash, ticket} {
		parts = append(parts, part[:]...)
	}
	return sha256.Sum256(parts)
}

// CertifyBinding computes the qualifyingData of the certification of one key, by
// kind, S and audience as in the quote of the same login.
func CertifyBinding(b Binding, key []byte) [sha256.Size]byte {
	purpose := sha256.Sum256([]byte("omen/1/certify/" + string(b.Kind)))
	secret := sha256.Sum256(b.Secret)
	audience := sha256.Sum256([]byte(b.Audience))
	spki := sha256.Sum256(key)
	parts := make([]byte, 0, 4*sha256.Size)
	for _, part := range [][sha256.Size]byte{purpose, secret, audience, spki} {
		parts = append(parts, part[:]...)
	}
	return sha256.Sum256(parts)
}

// hashKeys is SHA-256(count ‖ SHA-256(key)…), count being one byte.
func hashKeys(keys [][]byte) [sha256.Size]byte {
	if len(keys) == 0 {
		return absent
	}
	list := make([]byte, 1, 1+len(keys)*sha256.Size)
	list[0] = byte(len(keys))
	for _, k := range keys {
		h := sha256.Sum256(k)
		list = append(list, h[:]...)
	}
	return sha256.Sum256(list)
}
