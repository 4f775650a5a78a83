// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
)

// Mode says where the private half of a key lives.
type Mode string

// The modes.
const (
	ModeFile     Mode = "file"   // in a file that its service reads
	ModeSealed   Mode = "sealed" // on a tmpfs, and sealed to the TPM for the next boot
	ModeResident Mode = "tpm"    // in the TPM, which signs
	ModeAuto     Mode = "auto"   // the strongest that TPM and service can use
)

// CheckMode says whether mode is one.
func CheckMode(mode Mode) error {
	switch mode {
	case ModeFile, ModeSealed, ModeResident, ModeAuto:
		return nil
	}
	return fmt.Errorf(`key = %q: unknown key mode: want "tpm", "sealed", "file" or "auto"`, clean(string(mode)))
}

// Storage is what keys need of a TPM: its storage root, as *tpm.Storage is one.
type Storage interface {
	// Parent names the storage root in a key file.
	Parent() tpm2.TPMHandle
	CreateKey(ctx context.Context, template tpm2.TPMTPublic) (tpm.Blob, error)
	Sign(ctx context.Context, key tpm.Blob, digest []byte) (r, s *big.Int, err error)
	Seal(ctx context.Context, secret []byte, policy tpm.SealPolicy) (tpm.Blob, error)
	Unseal(ctx context.Context, blob tpm.Blob, policy tpm.SealPolicy) ([]byte, error)
}
