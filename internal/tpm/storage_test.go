// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// findRoot finds the storage root of a TPM, which the test closes.
func findRoot(t *testing.T, opened *tpm.TPM, known *tpm.StorageRoot) *tpm.Storage {
	t.Helper()
	storage, err := opened.Storage(t.Context(), known)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := storage.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return storage
}

// persistRoot has a machine keep the standard storage root.
func persistRoot(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm.RootTemplate()); err != nil {
		t.Fatal(err)
	}
}

// checkKey makes a key, has it sign, and looks whether it did.
func checkKey(t *testing.T, storage *tpm.Storage) tpm.Blob {
	t.Helper()
	blob, err := storage.CreateKey(t.Context(), attest.KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	checkSignature(t, storage, blob)
	return blob
}

func checkSignature(t *testing.T, storage *tpm.Storage, blob tpm.Blob) {
	t.Helper()
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
}

// checkSecret seals a P-256 key's size of bytes for any state, and has it back.
func checkSecret(t *testing.T, storage *tpm.Storage) tpm.Blob {
	t.Helper()
	secret := bytes.Repeat([]byte{7}, 121)
	blob, err := storage.Seal(t.Context(), secret, tpm.SealPolicy{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := storage.Unseal(t.Context(), blob, tpm.SealPolicy{}); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("unsealed %d bytes (%v)", len(got), err)
	}
	return blob
}

// wantCounts compares what was sent since the last look.
func wantCounts(t *testing.T, counter *tpmsim.Counter, what string, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, counter.Counts()); diff != "" {
		t.Errorf("%s cost other commands than it should (-want +got):\n%s", what, diff)
	}
	counter.Reset()
}

// What keys cost a TPM whose storage root is persistent and on record.
func TestCostOfKeys(t *testing.T) {
	sim := tpmsim.Start(t)
	persistRoot(t, sim)
	opened, counter := open(t, sim)
	root := findRoot(t, opened, nil).Root()
	if root.Parent != tpm.SRKHandle {
		t.Errorf("parent 0x%08x", uint32(root.Parent))
	}
	wantCounts(t, counter, "finding the root", map[string]int{"ReadPublic": 1})
	storage := findRoot(t, opened, root)
	first := checkKey(t, storage)
	wantCounts(t, counter, "a key", map[string]int{"CreateLoaded": 1, "Sign": 1})
	second := checkKey(t, storage)
	wantCounts(t, counter, "the next key", map[string]int{"FlushContext": 1, "CreateLoaded": 1, "Sign": 1})
	checkSignature(t, storage, second)
	wantCounts(t, counter, "the same key", map[string]int{"Sign": 1})
	checkSignature(t, storage, first)
	wantCounts(t, counter, "another key", map[string]int{"FlushContext": 1, "Load": 1, "Sign": 1})
	if err := storage.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantCounts(t, counter, "the end", map[string]int{"FlushContext": 1})
}

// A key's TPM says that it is there, and under which root.
func TestKeyIsCertified(t *testing.T) {
	opened, counter := open(t, tpmsim.Start(t))
	storage := findRoot(t, opened, nil)
	blob := checkKey(t, storage)
	err := opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
		counter.Reset()
		info, signature, err := storage.Certify(t.Context(), ak, blob, []byte("challenge"))
		if err == nil && (!bytes.Contains(info, []byte("challenge")) || len(signature) == 0) {
			t.Error("certified something else")
		}
		wantCounts(t, counter, "certifying a key that is loaded", map[string]int{"Certify": 1})
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A TPM older than revision 1.38 makes a key by two commands.
func TestWithoutCreateLoaded(t *testing.T) {
	sim := tpmsim.Start(t)
	device := sim.Interpose(t, func(command []byte) []byte {
		if tpm.CommandName(command) == "CreateLoaded" {
			return tpmsim.Refusal(uint32(tpm2.TPMRCCommandCode))
		}
		return nil
	})
	for name, prepare := range map[string]func(*testing.T, *tpmsim.TPM){"root made for each use": func(*testing.T, *tpmsim.TPM) {}, "persistent root": persistRoot} {
		t.Run(name, func(t *testing.T) {
			prepare(t, sim)
			opened, counter := open(t, sim, func(c *tpm.Config) { c.Device = device })
			checkKey(t, findRoot(t, opened, nil))
			if counts := counter.Counts(); counts["CreateLoaded"] != 1 || counts["Create"] != 1 || counts["Load"] != 1 {
				t.Errorf("sent %v", counts)
			}
		})
	}
}

// Whatever else lies at the root's handle stays there, and the standard key is
// made beside it.
func TestForeignKeyAtRootHandle(t *testing.T) {
	signing := attest.KeyTemplate()
	otherParent := tpm2.ECCSRKTemplate
	otherParent.ObjectAttributes.NoDA = false
	for name, row := range map[string]struct {
		hierarchy tpm2.TPMHandle
		template  tpm2.TPMTPublic
		parent    tpm2.TPMHandle
	}{
		"standard":                    {tpm2.TPMRHOwner, tpm2.ECCSRKTemplate, tpm.SRKHandle},
		"RSA":                         {tpm2.TPMRHOwner, tpm2.RSASRKTemplate, tpm2.TPMRHOwner},
		"under DA protection":         {tpm2.TPMRHOwner, otherParent, tpm2.TPMRHOwner},
		"a signing key":               {tpm2.TPMRHOwner, signing, tpm2.TPMRHOwner},
		"of the endorsement's branch": {tpm2.TPMRHEndorsement, tpm2.ECCSRKTemplate, tpm2.TPMRHOwner},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			there, err := sim.Persist(row.hierarchy, tpm.SRKHandle, row.template)
			if err != nil {
				t.Fatal(err)
			}
			opened, _ := open(t, sim)
			storage := findRoot(t, opened, nil)
			checkKey(t, storage)
			checkSecret(t, storage)
			if storage.Parent() != row.parent || storage.Root().Parent != row.parent {
				t.Errorf("parent 0x%08x, want 0x%08x", uint32(storage.Parent()), uint32(row.parent))
			}
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
			now, err := tpm2.ReadPublic{ObjectHandle: tpm.SRKHandle}.Execute(sim)
			if err != nil || !bytes.Equal(now.OutPublic.Bytes(), there) {
				t.Errorf("the key at the handle is gone (%v)", err)
			}
		})
	}
}

// Both spellings of the root are one key: what was made under one loads under the
// other.
func TestRootBecomesPersistent(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim)
	storage := findRoot(t, opened, nil)
	key, secret := checkKey(t, storage), checkSecret(t, storage)
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	persistRoot(t, sim)
	opened, _ = open(t, sim)
	storage = findRoot(t, opened, nil)
	if storage.Parent() != tpm.SRKHandle {
		t.Errorf("parent 0x%08x", uint32(storage.Parent()))
	}
	checkSignature(t, storage, key)
	if _, err := storage.Unseal(t.Context(), secret, tpm.SealPolicy{}); err != nil {
		t.Error(err)
	}
}

// Whatever took the place of the root on record, it gets no secret, and opens none.
func TestRootOnRecordHasChanged(t *testing.T) {
	signing := attest.KeyTemplate()
	replace := func(template tpm2.TPMTPublic) func(*testing.T, *tpmsim.TPM) {
		return func(t *testing.T, sim *tpmsim.TPM) {
			t.Helper()
			if err := sim.Clear(); err != nil {
				t.Fatal(err)
			}
			if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, template); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, change := range map[string]func(*testing.T, *tpmsim.TPM){
		"cleared": func(t *testing.T, sim *tpmsim.TPM) {
			t.Helper()
			if err := sim.Clear(); err != nil {
				t.Fatal(err)
			}
		},
		"another owner's": replace(tpm2.ECCSRKTemplate), "RSA": replace(tpm2.RSASRKTemplate),
		"a signing key": replace(signing), "an RSA endorsement key": replace(tpm2.RSAEKTemplate),
	} {
		for _, persistent := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				sim := tpmsim.Start(t)
				if persistent {
					persistRoot(t, sim)
				}
				opened, _ := open(t, sim)
				storage := findRoot(t, opened, nil)
				key, secret := checkKey(t, storage), checkSecret(t, storage)
				root := storage.Root()
				if err := opened.Close(); err != nil {
					t.Fatal(err)
				}
				change(t, sim)
				opened, _ = open(t, sim)
				refusesAll(t, findRoot(t, opened, root), key, secret)
			})
		}
	}
}

func refusesAll(t *testing.T, storage *tpm.Storage, key, secret tpm.Blob) {
	t.Helper()
	digest := make([]byte, 32)
	if _, err := storage.Seal(t.Context(), []byte("secret"), tpm.SealPolicy{}); !errors.Is(err, tpm.ErrStorage) {
		t.Errorf("seal: %v", err)
	}
	if _, err := storage.Unseal(t.Context(), secret, tpm.SealPolicy{}); !errors.Is(err, tpm.ErrStorage) {
		t.Errorf("unseal: %v", err)
	}
	if _, _, err := storage.Sign(t.Context(), key, digest); !errors.Is(err, tpm.ErrStorage) {
		t.Errorf("sign: %v", err)
	}
}

func TestRecordOfAnotherKeyIsNone(t *testing.T) {
	opened, counter := open(t, tpmsim.Start(t))
	template := tpm2.RSASRKTemplate
	for _, public := range [][]byte{nil, {1, 2}, tpm2.Marshal(&template)} {
		if _, err := opened.Storage(t.Context(), &tpm.StorageRoot{Parent: tpm.SRKHandle, Public: public}); err == nil {
			t.Errorf("taken: %x", public)
		}
	}
	if counter.Total() != 0 {
		t.Errorf("sent %v", counter.Counts())
	}
}
