// SPDX-License-Identifier: Apache-2.0

package fileset

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/tss2"
)

// Where the private half of an installed key is.
const (
	KeyInFile = "file"   // in a file on the disk
	KeySealed = "sealed" // sealed on the disk, plain on a tmpfs
	KeyInTPM  = "tpm"    // in the TPM; the file is what it loads the key from
)

// SealedSuffix marks the file that a key comes back from. Where a set has
// NAME.sealed, its NAME.key is a link to the plain key on a tmpfs. The sealed file
// belongs to who owns the key.
const SealedSuffix = ".sealed"

// ErrNoPlainKey means that a sealed key has not been given out since the boot.
var ErrNoPlainKey = errors.New("the key is sealed")

// IsSealed says whether a set keeps this file on a tmpfs.
func IsSealed(files []beneath.File, name string) bool {
	base, isKey := strings.CutSuffix(name, ".key")
	if certificate, f, isForm := formIn(files, name); isForm {
		base, isKey = certificate, f.holdsKey()
	}
	if !isKey {
		return false
	}
	_, sealed := Find(files, base+SealedSuffix)
	return sealed
}

// Opener gives the private key back that was sealed as text, for a leaf.
type Opener func(ctx context.Context, text []byte, leaf *x509.Certificate) (keypair.KeyPEM, error)

// PlainFits reports that the plain key of a certificate is there and is its key.
func PlainFits(files []beneath.File, name string) bool {
	certificate, _ := Find(files, name+".crt")
	key, _ := Find(files, name+".key")
	if len(key.Content) == 0 {
		return false
	}
	_, err := keypair.Parse(certificate.Content, key.Content)
	return err == nil
}

// Unseal opens one sealed key, and judges certificate and key.
func Unseal(ctx context.Context, files []beneath.File, sealed beneath.File, open Opener) (keypair.KeyPEM, error) {
	certificate, _ := Find(files, strings.TrimSuffix(sealed.Name, SealedSuffix)+".crt")
	chain, err := keypair.ParseCertificates(certificate.Content)
	if err == nil && len(chain) == 0 {
		err = errors.New("no certificate beside the sealed key")
	}
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.After(chain[0].NotAfter) {
		return nil, fmt.Errorf("its certificate expired %s", chain[0].NotAfter.Format(time.RFC3339))
	}
	if open == nil {
		return nil, remedy.Errorf("omen-agent unseal puts it where the service reads it", "%w", ErrNoPlainKey)
	}
	key, err := open(ctx, sealed.Content, chain[0])
	if err != nil {
		return nil, err
	}
	_, err = keypair.Parse(certificate.Content, key)
	return key, err
}

// KeyPlace says where the key of a certificate of a set is, "" where it has none,
// and gives what a sealed one comes back from.
func KeyPlace(files []beneath.File, name string) (place string, sealed []byte) {
	kept, isSealed := Find(files, name+SealedSuffix)
	key, hasKey := Find(files, name+".key")
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
