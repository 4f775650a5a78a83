// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/tss2"
)

// Where the private half of an installed key is.
const (
	KeyInFile = "file"   // in a file on the disk
	KeySealed = "sealed" // sealed on the disk, plain on a tmpfs
	KeyInTPM  = "tpm"    // in the TPM; the file is what it loads the key from
)

// SignFunc signs a SHA-256 digest with the key that is in the TPM and whose key
// file this is. The signature is ECDSA in ASN.1 (RFC 3279, section 2.2.3).
type SignFunc func(ctx context.Context, key, digest []byte) (signature []byte, err error)

// errNoTPM means that a key is in the TPM, and nobody here signs with it.
var errNoTPM = errors.New("the key is in the TPM, which is not at hand")

// keyPlace says where the key of a certificate of a set is, "" where it has none,
// and gives what a sealed one comes back from.
func keyPlace(files []beneath.File, name string) (place string, sealed []byte) {
	kept, isSealed := file(files, name+sealedSuffix)
	key, hasKey := file(files, name+".key")
	switch {
	case isSealed:
		return KeySealed, kept.Content
	case !hasKey:
		return "", nil
	case tss2.Is(key.Content):
		return KeyInTPM, nil
	}
	return KeyInFile, nil
}

// parseResident reads the file of a key that is in the TPM.
func parseResident(text []byte) (*residentKey, error) {
	key, err := tss2.Parse(text)
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	if text, err = key.PEM(); err != nil {
		return nil, err
	}
	return &residentKey{public: public, text: text, ctx: context.Background()}, nil
}

// A residentKey is a crypto.Signer that asks the TPM for each signature, so that a
// probe that needs none needs no TPM.
type residentKey struct {
	public crypto.PublicKey
	text   []byte
	ctx    context.Context // of the probe: crypto.Signer has no place for one
	sign   SignFunc        // nil: nobody signs
}

// Public gives the public half.
func (k *residentKey) Public() crypto.PublicKey { return k.public }

// Sign is of crypto.Signer.
func (k *residentKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.sign == nil {
		return nil, errNoTPM
	}
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("a key in the TPM signs SHA-256, not %v", opts.HashFunc())
	}
	return k.sign(k.ctx, k.text, digest)
}

// lend has the TPM sign for a certificate whose key is there. It is offered for
// what such a key can sign only.
func (p *plan) lend(ctx context.Context, certificate *tls.Certificate) {
	if key, resident := certificate.PrivateKey.(*residentKey); resident {
		key.ctx, key.sign = ctx, p.sign
		certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	}
}
