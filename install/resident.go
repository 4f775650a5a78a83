// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"

	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keypair"
)

// Where the private half of an installed key is.
const (
	KeyInFile = fileset.KeyInFile // in a file on the disk
	KeySealed = fileset.KeySealed // sealed on the disk, plain on a tmpfs
	KeyInTPM  = fileset.KeyInTPM  // in the TPM; the file is what it loads the key from
)

// SignFunc signs a SHA-256 digest with the key that is in the TPM and whose key
// file this is. The signature is ECDSA in ASN.1 (RFC 3279, section 2.2.3).
type SignFunc = keypair.SignFunc

// lend has the TPM sign for a certificate whose key is there. It is offered for
// what such a key can sign only.
func (p *plan) lend(ctx context.Context, certificate *tls.Certificate) {
	if key, resident := certificate.PrivateKey.(*keypair.Resident); resident {
		key.Lend(ctx, p.sign)
		certificate.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	}
}
