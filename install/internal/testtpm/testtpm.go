// SPDX-License-Identifier: Apache-2.0

// Package testtpm gives tests a TPM with keys that stay in it. It is imported by
// tests only and never touches a TPM of the machine.
package testtpm

import (
	"context"
	"crypto"
	"errors"
	"testing"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// TPM is one that is opened for each use, as the agent does.
type TPM struct {
	t   *testing.T
	sim *tpmsim.TPM
	// Signed counts what it signed.
	Signed int
}

// Start starts one.
func Start(t *testing.T) *TPM {
	t.Helper()
	return &TPM{t: t, sim: tpmsim.Start(t)}
}

func (c *TPM) use(ctx context.Context, fn func(storage *tpm.Storage) error) error {
	opened, err := tpm.Open(ctx, tpm.Config{Device: c.sim.Device()})
	if err != nil {
		return err
	}
	storage, err := opened.Storage(ctx, nil)
	if err != nil {
		return errors.Join(err, opened.Close())
	}
	return errors.Join(fn(storage), storage.Close(ctx), opened.Close())
}

// Key makes a key and gives its file.
func (c *TPM) Key() (text []byte) {
	c.t.Helper()
	err := c.use(c.t.Context(), func(storage *tpm.Storage) error {
		key, err := issuer.NewKey(c.t.Context(), issuer.ModeResident, storage)
		if err != nil {
			return err
		}
		private, err := key.PEM()
		text = private.Reveal()
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// Sign signs with the key whose file this is.
func (c *TPM) Sign(ctx context.Context, key, digest []byte) (signature []byte, err error) {
	c.Signed++
	err = c.use(ctx, func(storage *tpm.Storage) error {
		signer, err := issuer.NewSigners(storage).Open(ctx, key)
		if err == nil {
			signature, err = signer.Sign(nil, digest, crypto.SHA256)
		}
		return err
	})
	return signature, err
}
