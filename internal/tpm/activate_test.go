// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

func TestActivateCredential(t *testing.T) {
	for _, e := range endorsements {
		for _, persistent := range []bool{true, false} {
			t.Run(e.name, func(t *testing.T) {
				opened, _ := open(t, tpmsim.Start(t))
				primary := e.primary(t, certifiedKey(t, opened, e.index))
				if !persistent {
					primary.Handle = 0
				}
				activate(t, opened, primary, e.branches)
			})
		}
	}
}

var activationSecret = bytes.Repeat([]byte{0xa5}, 32)

// activate makes a credential as a server would and recovers it.
func activate(t *testing.T, opened *tpm.TPM, primary tpm.Primary, branches [][]byte) {
	t.Helper()
	err := opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
		return opened.WithPrimary(t.Context(), primary, func(ek tpm.Key) error {
			if ek.Persistent() != (primary.Handle != 0) {
				t.Errorf("endorsement key persistent: %v", ek.Persistent())
			}
			credential := makeCredential(t, ek.Public(), ak.Public(), activationSecret)
			got, err := opened.ActivateCredential(t.Context(), ak, ek, branches, credential)
			if !bytes.Equal(got, activationSecret) {
				t.Errorf("recovered %x", got)
			}
			return err
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func makeCredential(t *testing.T, ekPublic, akPublic, secret []byte) tpm.Credential {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ekPublic)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := attest.ParseAK(akPublic)
	if err != nil {
		t.Fatal(err)
	}
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, key, ak.Name(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return tpm.Credential{Blob: blob, Secret: encrypted}
}

func TestActivateCredentialP256(t *testing.T) {
	opened, _ := open(t, tpmsim.Start(t))
	p256 := endorsement{template: func() tpm2.TPMTPublic { return tpm2.ECCEKTemplate }}
	any256 := tpm.Primary{Template: tpm2.ECCEKTemplate, Accept: func([]byte) error { return nil }}
	var key *ecdsa.PublicKey
	err := opened.WithPrimary(t.Context(), any256, func(ek tpm.Key) error {
		key = pointOf(t, ek.Public())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	activate(t, opened, p256.primary(t, key), nil)
}

func pointOf(t *testing.T, raw []byte) *ecdsa.PublicKey {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		t.Fatal(err)
	}
	point, err := public.Unique.ECC()
	if err != nil {
		t.Fatal(err)
	}
	uncompressed := append([]byte{4}, append(point.X.Buffer, point.Y.Buffer...)...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestActivateCredentialRefusesBentBlobs(t *testing.T) {
	e := endorsements[0]
	opened, _ := open(t, tpmsim.Start(t))
	primary := e.primary(t, certifiedKey(t, opened, e.index))
	for name, bend := range map[string]func(*tpm.Credential){
		"bent blob":   func(c *tpm.Credential) { c.Blob[5] ^= 1 },
		"short blob":  func(c *tpm.Credential) { c.Blob = c.Blob[:10] },
		"bent secret": func(c *tpm.Credential) { c.Secret[5] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			err := opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
				return opened.WithPrimary(t.Context(), primary, func(ek tpm.Key) error {
					credential := makeCredential(t, ek.Public(), ak.Public(), make([]byte, 32))
					bend(&credential)
					_, err := opened.ActivateCredential(t.Context(), ak, ek, nil, credential)
					return err
				})
			})
			if err == nil {
				t.Error("activated")
			}
		})
	}
}

// TestActivateDuringLockout proves that the password path, which dictionary-
// attack protection counts, is not used.
func TestActivateDuringLockout(t *testing.T) {
	sim := tpmsim.Start(t)
	lockOut(t, sim)
	opened, _ := open(t, sim)
	for _, e := range endorsements {
		activate(t, opened, e.primary(t, certifiedKey(t, opened, e.index)), e.branches)
	}
}

// lockOut fails the password of a protected object until the TPM is locked.
func lockOut(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	key, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic:      tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")},
		}},
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !errors.Is(err, tpm2.TPMRCLockout) {
		if time.Now().After(deadline) {
			t.Fatalf("not locked out: %v", err)
		}
		_, err = tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
			InPublic:     tpm2.New2B(tpm2.ECCSRKTemplate),
		}.Execute(sim)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
}

// TestSecretDoesNotCrossTheBus listens between program and TPM.
func TestSecretDoesNotCrossTheBus(t *testing.T) {
	for _, e := range endorsements {
		t.Run(e.name, func(t *testing.T) {
			opened, end := openRelayed(t, tpmsim.Start(t))
			key := certifiedKey(t, opened, e.index)
			activate(t, opened, e.primary(t, key), e.branches)
			seen := end()
			if bytes.Contains(seen, activationSecret) {
				t.Error("the secret was to be seen on the bus")
			}
			public, err := attest.EKPublic(key)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(seen, tpm2.Marshal(*public)) {
				t.Error("the listener did not hear what is not encrypted")
			}
		})
	}
}
