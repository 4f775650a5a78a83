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
}

// absent stands for a part of the binding that is not there.
var absent [sha256.Size]byte

// QuoteBinding computes the qualifyingData of the quote: a hash of hashes, so
// that each part has one place and no two bindings share bytes. The last part
// belongs to the enrolment ticket, which this version always leaves absent.
func QuoteBinding(b Binding) [sha256.Size]byte {
	purpose := sha256.Sum256([]byte("omen/1/quote/" + string(b.Kind)))
	secret := sha256.Sum256(b.Secret)
	audience := sha256.Sum256([]byte(b.Audience))
	keys := hashKeys(b.Keys)
	parts := make([]byte, 0, 6*sha256.Size)
	for _, part := range [][sha256.Size]byte{purpose, secret, audience, keys, b.EventLogHash, absent} {
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
