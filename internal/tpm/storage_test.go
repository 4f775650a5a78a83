// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// A key in the TPM signs, and its TPM says that it is there.
func TestKeySignsAndIsCertified(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim)
	storage, err := opened.Storage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := storage.CreateKey(t.Context(), attest.KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](blob.Public)
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("request"))
	r, s, err := storage.Sign(t.Context(), blob, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.Verify(public.(*ecdsa.PublicKey), digest[:], r, s) {
		t.Error("the signature does not verify")
	}
	err = opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
		info, _, err := storage.Certify(t.Context(), ak, blob, []byte("challenge"))
		if err == nil && !bytes.Contains(info, []byte("challenge")) {
			t.Error("certified something else")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := storage.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// withStorage runs fn with the storage root of a TPM that is opened for it.
func withStorage(t *testing.T, sim *tpmsim.TPM, fn func(*tpm.TPM, *tpm.Storage)) {
	t.Helper()
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: sim.Device()})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := opened.Storage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	fn(opened, storage)
	if err := errors.Join(storage.Close(t.Context()), opened.Close()); err != nil {
		t.Error(err)
	}
}

// A sealed secret comes back in the states it was sealed to, and in no other.
func TestSecretComesBackInItsStates(t *testing.T) {
	sim := tpmsim.Start(t)
	secret, event := bytes.Repeat([]byte{7}, 121), bytes.Repeat([]byte{1}, 32)
	var here, announced tpm.SealPolicy
	var old, both tpm.Blob
	withStorage(t, sim, func(opened *tpm.TPM, storage *tpm.Storage) {
		values, err := opened.ReadPCRs(t.Context(), tpm2.TPMAlgSHA256, []int{7})
		if err != nil {
			t.Fatal(err)
		}
		next := sha256.Sum256(append(bytes.Clone(values[7]), event...))
		here = tpm.SealPolicy{Bank: tpm2.TPMAlgSHA256, PCRs: []int{7}, States: [][][]byte{{values[7]}}}
		announced = here
		announced.States = append(announced.States[:1:1], [][]byte{next[:]})
		for _, policy := range []tpm.SealPolicy{{}, here, announced} {
			blob, err := storage.Seal(t.Context(), secret, policy)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := storage.Unseal(t.Context(), blob, policy); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("%d states: %v", len(policy.States), err)
			}
		}
		if old, err = storage.Seal(t.Context(), secret, here); err != nil {
			t.Fatal(err)
		}
		if both, err = storage.Seal(t.Context(), secret, announced); err != nil {
			t.Fatal(err)
		}
	})
	if err := sim.Extend(7, tpm2.TPMAlgSHA256, event); err != nil {
		t.Fatal(err)
	}
	withStorage(t, sim, func(_ *tpm.TPM, storage *tpm.Storage) {
		if _, err := storage.Unseal(t.Context(), old, here); !errors.Is(err, tpm.ErrState) {
			t.Errorf("after a change nobody announced: %v", err)
		}
		if got, err := storage.Unseal(t.Context(), both, announced); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("in the announced state: %v", err)
		}
	})
}
