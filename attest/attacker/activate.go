// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// errIntegrity is what a TPM answers with TPM_RC_INTEGRITY.
var errIntegrity = errors.New("credential is not for this EK and this AK")

// protection is how an endorsement key's template protects a credential.
type protection struct {
	hash    crypto.Hash // nameAlg
	keyBits int         // of AES in CFB
}

// Activate is TPM2_ActivateCredential (TPM 2.0 Part 1, 24 "Credential
// Protection"): it unwraps a secret that was wrapped for this EK and this AK.
func (t *TPM) Activate(c *attest.Credential) ([]byte, error) {
	if c == nil {
		return nil, errors.New("no credential")
	}
	seed, p, err := t.seed(c.Secret)
	if err != nil {
		return nil, err
	}
	integrity, identity, ok := cut(c.Blob)
	if !ok {
		return nil, errIntegrity
	}
	mac := hmac.New(p.hash.New, tpm2.KDFa(p.hash, seed, "INTEGRITY", nil, nil, p.hash.Size()*8))
	mac.Write(identity)
	mac.Write(t.AK.Name())
	if !hmac.Equal(mac.Sum(nil), integrity) {
		return nil, errIntegrity
	}
	block, err := aes.NewCipher(tpm2.KDFa(p.hash, seed, "STORAGE", t.AK.Name(), nil, p.keyBits))
	if err != nil {
		return nil, err
	}
	secret, rest, ok := cut(decryptCFB(block, identity))
	if !ok || len(rest) != 0 {
		return nil, errIntegrity
	}
	return secret, nil
}

// seed undoes the wrapping by the endorsement key (TPM 2.0 Part 1, annexes B.10.4
// and C.6.3).
func (t *TPM) seed(wrapped []byte) ([]byte, protection, error) {
	switch ek := t.EK.(type) {
	case *rsa.PrivateKey:
		p := protection{crypto.SHA256, 128}
		seed, err := rsa.DecryptOAEP(p.hash.New(), nil, ek, wrapped, []byte("IDENTITY\x00"))
		if err != nil {
			return nil, p, errors.Join(errIntegrity, err)
		}
		return seed, p, nil
	case *ecdsa.PrivateKey:
		p := protection{crypto.SHA256, 128}
		if ek.Curve == elliptic.P384() {
			p = protection{crypto.SHA384, 256}
		}
		seed, err := agreedSeed(ek, wrapped, p.hash)
		return seed, p, err
	default:
		return nil, protection{}, fmt.Errorf("no TPM has an EK of type %T", ek)
	}
}

func agreedSeed(key *ecdsa.PrivateKey, wrapped []byte, hash crypto.Hash) ([]byte, error) {
	x, rest, okX := cut(wrapped)
	y, rest, okY := cut(rest)
	size := (key.Curve.Params().BitSize + 7) / 8
	if !okX || !okY || len(rest) != 0 || len(x) > size || len(y) > size {
		return nil, errIntegrity
	}
	private, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	point := append(append([]byte{4}, padded(x, size)...), padded(y, size)...)
	ephemeral, err := private.Curve().NewPublicKey(point)
	if err != nil {
		return nil, errors.Join(errIntegrity, err)
	}
	z, err := private.ECDH(ephemeral)
	if err != nil {
		return nil, err
	}
	own := private.PublicKey().Bytes()
	return tpm2.KDFe(hash, z, "IDENTITY", padded(x, size), own[1:1+size], hash.Size()*8), nil
}

func padded(b []byte, size int) []byte {
	return append(bytes.Repeat([]byte{0}, size-len(b)), b...)
}

// cut takes a TPM2B off the front.
func cut(b []byte) (part, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(b[0])<<8 | int(b[1])
	if b = b[2:]; n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// decryptCFB undoes AES in full-block cipher feedback from a zero block, the mode
// of the TPM specification.
func decryptCFB(block cipher.Block, in []byte) []byte {
	out, feedback, pad := make([]byte, len(in)), make([]byte, block.BlockSize()), make([]byte, block.BlockSize())
	for i := range in {
		n := i % len(pad)
		if n == 0 {
			block.Encrypt(pad, feedback)
		}
		out[i] = in[i] ^ pad[n]
		feedback[n] = in[i]
	}
	return out
}
