// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// Somebody else's wrong passwords lock neither our keys nor our secrets.
func TestDictionaryAttackLockout(t *testing.T) {
	for name, prepare := range roots {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			prepare(t, sim)
			here := present(t, sim, 7)
			if err := sim.LockOut(); err != nil {
				t.Fatal(err)
			}
			opened, _ := open(t, sim)
			storage := findRoot(t, opened, nil)
			checkKey(t, storage)
			checkSecret(t, storage)
			blob, err := storage.Seal(t.Context(), secret, here)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := storage.Unseal(t.Context(), blob, here); err != nil || !bytes.Equal(got, secret) {
				t.Error(err)
			}
		})
	}
}

// roots are the two ways in which a machine has its storage root.
var roots = map[string]func(*testing.T, *tpmsim.TPM){
	"root made for each use": func(*testing.T, *tpmsim.TPM) {}, "persistent root": persistRoot,
}

// A TPM that says "not now" is asked again, whatever it is asked; one that goes on
// saying so is busy.
func TestNotNow(t *testing.T) {
	for name, often := range map[string]int{"twice": 2, "for ever": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := tpmsim.Start(t)
			persistRoot(t, sim)
			said := map[string]int{}
			device := sim.Interpose(t, func(command []byte) []byte {
				name := tpm.CommandName(command)
				if said[name]++; said[name] > often || often > 2 && name != "CreateLoaded" {
					return nil
				}
				return tpmsim.Refusal(uint32(tpm2.TPMRCRetry))
			})
			opened, _ := open(t, sim, func(c *tpm.Config) { c.Device = device })
			storage := findRoot(t, opened, nil)
			if often > 2 {
				if _, err := storage.CreateKey(t.Context(), attest.KeyTemplate()); !errors.Is(err, tpm.ErrBusy) {
					t.Errorf("error is %v", err)
				}
				return
			}
			checkKey(t, storage)
			checkSecret(t, storage)
		})
	}
}

// Where other programs hold all slots, that is what is said; with the slots that we
// need there is no trouble.
func TestObjectMemoryFull(t *testing.T) {
	for name, prepare := range roots {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			prepare(t, sim)
			opened, _ := open(t, sim)
			storage := findRoot(t, opened, nil)
			checkSecret(t, storage)
			root := storage.Root().Public
			if err := opened.Close(); err != nil {
				t.Fatal(err)
			}
			others, err := sim.Occupy(3)
			if err != nil {
				t.Fatal(err)
			}
			opened, _ = open(t, sim)
			if _, err = opened.Storage(t.Context(), nil); !errors.Is(err, tpm.ErrBusy) {
				t.Errorf("find: %v", err)
			}
			for _, parent := range []tpm2.TPMHandle{tpm.SRKHandle, tpm2.TPMRHOwner} {
				storage := findRoot(t, opened, &tpm.StorageRoot{Parent: parent, Public: root})
				_, made := storage.CreateKey(t.Context(), attest.KeyTemplate())
				_, sealed := storage.Seal(t.Context(), secret, tpm.SealPolicy{})
				for _, err := range []error{made, sealed} {
					if !errors.Is(err, tpm.ErrBusy) || errors.Is(err, tpm.ErrStorage) {
						t.Errorf("error is %v", err)
					}
				}
			}
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
			if err := sim.Flush(others[:2]...); err != nil {
				t.Fatal(err)
			}
			opened, _ = open(t, sim)
			storage = findRoot(t, opened, nil)
			checkSecret(t, storage)
			checkKey(t, storage)
			if err := errors.Join(storage.Close(t.Context()), opened.Close(), sim.Flush(others[2])); err != nil {
				t.Error(err)
			}
		})
	}
}

// A persistent root needs no word of the owner. One that is made for each use does.
func TestOwnerPassword(t *testing.T) {
	for name, row := range map[string]struct {
		persistent, given bool
		want              error
	}{
		"persistent root": {true, false, nil}, "given": {false, true, nil}, "not given": {false, false, tpm.ErrAuth},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			if row.persistent {
				persistRoot(t, sim)
			}
			if err := sim.SetAuth(tpm2.TPMRHOwner, "owner"); err != nil {
				t.Fatal(err)
			}
			opened, _ := open(t, sim, func(c *tpm.Config) {
				if row.given {
					c.OwnerAuth = auth(t, "owner")
				}
			})
			storage := findRoot(t, opened, nil)
			if row.want == nil {
				checkKey(t, storage)
				checkSecret(t, storage)
				return
			}
			_, made := storage.CreateKey(t.Context(), attest.KeyTemplate())
			_, sealed := storage.Seal(t.Context(), secret, tpm.SealPolicy{})
			for _, err := range []error{made, sealed} {
				if !errors.Is(err, row.want) || errors.Is(err, tpm.ErrStorage) || !strings.Contains(err.Error(), "the owner hierarchy") {
					t.Errorf("error is %v", err)
				}
			}
		})
	}
}

// A standard key that somebody gave a password is used by its template instead.
func TestRootWithPassword(t *testing.T) {
	sim := tpmsim.Start(t)
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm.RootTemplate()),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("password")}}},
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: tpm.SRKHandle,
	}.Execute(sim)
	if err := errors.Join(err, sim.Flush(made.ObjectHandle)); err != nil {
		t.Fatal(err)
	}
	opened, _ := open(t, sim)
	storage := findRoot(t, opened, nil)
	err = opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
		_, _, err := storage.CertifyRoot(t.Context(), ak, []byte("nonce"))
		return err
	})
	if err != nil || storage.Parent() != tpm2.TPMRHOwner {
		t.Errorf("parent 0x%08x (%v)", uint32(storage.Parent()), err)
	}
	checkKey(t, storage)
	checkSecret(t, storage)
}

// An interposer that has a storage root of its own answers for it. It gets neither
// what is sealed nor what was, and no certification of its key.
func TestInterposedRoot(t *testing.T) {
	for name, prepare := range roots {
		t.Run(name, func(t *testing.T) {
			devices := tpmsim.StartN(t, 2)
			for _, sim := range devices {
				prepare(t, sim)
			}
			opened, _ := open(t, devices[0])
			storage := findRoot(t, opened, nil)
			key, kept := checkKey(t, storage), checkSecret(t, storage)
			root := storage.Root()
			if err := opened.Close(); err != nil {
				t.Fatal(err)
			}
			var seen bytes.Buffer
			device := devices[0].Interpose(t, func(command []byte) []byte {
				response, err := devices[1].Send(command)
				if err != nil {
					t.Error(err)
				}
				seen.Write(slices.Concat(command, response))
				return response
			})
			opened, _ = open(t, devices[0], func(c *tpm.Config) { c.Device = device })
			storage = findRoot(t, opened, root)
			if _, err := storage.Seal(t.Context(), secret, tpm.SealPolicy{}); !errors.Is(err, tpm.ErrStorage) {
				t.Errorf("seal: %v", err)
			}
			refusesAll(t, storage, key, kept)
			if bytes.Contains(seen.Bytes(), secret) {
				t.Error("the secret was shown")
			}
		})
	}
}

// A root in another key's place is not certified: who answers for it cannot have the
// attestation key say so.
func TestInterposedRootIsNotCertified(t *testing.T) {
	devices := tpmsim.StartN(t, 2)
	for _, sim := range devices {
		persistRoot(t, sim)
	}
	device := devices[0].Interpose(t, func(command []byte) []byte {
		if tpm.CommandName(command) != "ReadPublic" {
			return nil
		}
		response, err := devices[1].Send(command)
		if err != nil {
			t.Error(err)
		}
		return response
	})
	opened, _ := open(t, devices[0], func(c *tpm.Config) { c.Device = device })
	storage := findRoot(t, opened, nil)
	primary := akPrimary()
	primary.Handle = 0
	err := opened.WithPrimary(t.Context(), primary, func(ak tpm.Key) error {
		_, _, err := storage.CertifyRoot(t.Context(), ak, []byte("nonce"))
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "about another key") {
		t.Errorf("error is %v", err)
	}
}

// operations are what is done with a storage root, each with a policy to unseal by.
func operations(here tpm.SealPolicy) map[string]func(context.Context, *tpm.TPM, *tpm.Storage) error {
	return map[string]func(context.Context, *tpm.TPM, *tpm.Storage) error{
		"keys": func(ctx context.Context, _ *tpm.TPM, storage *tpm.Storage) error {
			first, err := storage.CreateKey(ctx, attest.KeyTemplate())
			if err != nil {
				return err
			}
			if _, err := storage.CreateKey(ctx, attest.KeyTemplate()); err != nil {
				return err
			}
			_, _, err = storage.Sign(ctx, first, make([]byte, 32))
			return err
		},
		"certification": func(ctx context.Context, opened *tpm.TPM, storage *tpm.Storage) error {
			blob, err := storage.CreateKey(ctx, attest.KeyTemplate())
			if err != nil {
				return err
			}
			return opened.WithPrimary(ctx, akPrimary(), func(ak tpm.Key) error {
				if _, _, err := storage.Certify(ctx, ak, blob, nil); err != nil {
					return err
				}
				_, _, err := storage.CertifyRoot(ctx, ak, nil)
				return err
			})
		},
		"secrets": func(ctx context.Context, _ *tpm.TPM, storage *tpm.Storage) error {
			for _, policy := range []tpm.SealPolicy{{}, here, or(here, 2)} {
				blob, err := storage.Seal(ctx, secret, policy)
				if err != nil {
					return err
				}
				if _, err = storage.Unseal(ctx, blob, policy); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// Whatever the moment at which a context ends, and whichever command fails, nothing
// stays in the TPM, also before the connection is closed.
func TestNothingIsLeft(t *testing.T) {
	sim := tpmsim.Start(t)
	if err := sim.SetAuth(tpm2.TPMRHOwner, "owner"); err != nil {
		t.Fatal(err)
	}
	here := present(t, sim, 7)
	for name, operation := range operations(here) {
		for _, fault := range []string{"context ends", "command fails"} {
			t.Run(name+", "+fault, func(t *testing.T) {
				for n := 1; ; n++ {
					if hits := interrupt(t, sim, fault, n, operation); hits < n {
						if n < 5 {
							t.Errorf("only %d commands", hits)
						}
						return
					}
				}
			})
		}
	}
}

// interrupt runs an operation that is disturbed at the nth command, and gives how
// many commands there were. What flushes is not disturbed.
func interrupt(t *testing.T, sim *tpmsim.TPM, fault string, n int, operation func(context.Context, *tpm.TPM, *tpm.Storage) error) (heard int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	device := sim.Interpose(t, func(command []byte) []byte {
		if tpm.CommandName(command) == "FlushContext" {
			return nil
		}
		heard++
		switch {
		case heard == n && fault == "context ends":
			cancel()
		case heard == n:
			return tpmsim.Refusal(uint32(tpm2.TPMRCFailure))
		}
		return nil
	})
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: device, OwnerAuth: auth(t, "owner")})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := opened.Storage(ctx, nil)
	if err == nil {
		err = operation(ctx, opened, storage)
		if closed := storage.Close(ctx); closed != nil {
			t.Error(closed)
		}
	}
	if heard > n && err == nil || heard < n && err != nil {
		t.Errorf("disturbed at command %d of %d: %v", n, heard, err)
	}
	if left, err := sim.Leaks(); err != nil || len(left) != 0 {
		t.Fatalf("disturbed at command %d: %x left (%v)", n, left, err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	return heard
}
