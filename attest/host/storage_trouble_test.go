// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// Somebody else's wrong passwords stop neither a first login nor keys nor secrets.
func TestEverythingDuringLockout(t *testing.T) {
	for _, ek := range []string{"rsa2048", "p384"} {
		t.Run(ek, func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			m.config.EK = ek
			if err := m.sim.LockOut(); err != nil {
				t.Fatal(err)
			}
			m.renewKey(t, attest.KindActivate)
			if err := m.unseal(t, m.seal(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each hierarchy's password is asked for where it is needed, by its name, and nothing
// is tried again and again.
func TestPasswordsOfHierarchies(t *testing.T) {
	for name, row := range map[string]struct {
		hierarchy  tpm2.TPMHandle
		persistent bool
		want       string // in the error without the password; empty: none is needed
	}{
		"owner, persistent root":        {tpm2.TPMRHOwner, true, ""},
		"owner, root made for each use": {tpm2.TPMRHOwner, false, "the owner hierarchy has another authorisation value"},
		"endorsement":                   {tpm2.TPMRHEndorsement, true, "the endorsement hierarchy has another authorisation value"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			if row.persistent {
				persistRoot(t, m.sim)
			}
			if err := m.sim.SetAuth(row.hierarchy, "password"); err != nil {
				t.Fatal(err)
			}
			m.with(t, func(prover *host.Prover) {
				_, err := m.certifyKey(t, prover, attest.KindActivate)
				if row.want != "" && (!errors.Is(err, host.ErrAuth) || errors.Is(err, host.ErrStorage) || !strings.Contains(err.Error(), row.want)) ||
					row.want == "" && err != nil {
					t.Errorf("without the password: %v", err)
				}
			})
			m.config.OwnerAuth, m.config.EndorsementAuth = host.AuthValue{}, authValue(t, "password")
			if row.hierarchy == tpm2.TPMRHOwner {
				m.config.OwnerAuth, m.config.EndorsementAuth = authValue(t, "password"), host.AuthValue{}
			}
			m.renewKey(t, attest.KindActivate)
			if err := m.unseal(t, m.seal(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Where other programs hold the slots of a TPM without resource manager, a renewal
// says so at each step and leaves nothing; with all of ours free it works.
func TestOthersHoldTheSlots(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	persistRoot(t, m.sim)
	blob := m.seal(t)
	for taken := 3; taken > 0; taken-- {
		others, err := m.sim.Occupy(taken)
		if err != nil {
			t.Fatal(err)
		}
		failed := false
		m.with(t, func(prover *host.Prover) {
			_, err := m.certifyKey(t, prover, attest.KindKnown)
			failed = err != nil
			if failed && (!errors.Is(err, host.ErrBusy) || errors.Is(err, host.ErrStorage)) {
				t.Errorf("%d slots taken: %v", taken, err)
			}
		})
		if err := m.unseal(t, blob); err != nil && !errors.Is(err, host.ErrBusy) {
			t.Errorf("%d slots taken, unseal: %v", taken, err)
		}
		if taken == 3 && !failed {
			t.Error("a renewal without any slot")
		}
		if taken == 1 && failed {
			t.Error("two slots are enough where root and attestation key are persistent")
		}
		left, err := m.sim.Leaks()
		if err != nil || len(left) != taken {
			t.Errorf("%d slots taken: afterwards %x (%v)", taken, left, err)
		}
		if err := m.sim.Flush(others...); err != nil {
			t.Fatal(err)
		}
	}
}

// An interposer puts a root of its own in the place of the TPM's, at the first use.
// The attestation key does not say so.
func TestInterposerAtFirstUse(t *testing.T) {
	devices := tpmsim.StartN(t, 2)
	m := newMachine(t, devices[0])
	for _, sim := range devices {
		persistRoot(t, sim)
	}
	m.config.Device = m.sim.Interpose(t, func(command []byte) []byte {
		if tpm.CommandName(command) != "ReadPublic" || handleOf(command) != tpm.SRKHandle {
			return nil
		}
		return fromOther(t, devices[1], command)
	})
	m.with(t, func(prover *host.Prover) {
		if _, err := prover.Storage(t.Context()); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("error is %v", err)
		}
	})
}

// An interposer answers for all of the TPM, attestation key included, which the server
// does not let in. What that key vouched for never gets on record, and nothing of it is
// used once the TPM's own keys are there.
func TestInterposerBeforeLogin(t *testing.T) {
	devices := tpmsim.StartN(t, 2)
	m := newMachine(t, devices[0])
	for _, sim := range devices {
		persistRoot(t, sim)
	}
	path := filepath.Join(m.config.StateDir, host.RootRecordName)
	interposed := true
	m.config.Device = m.sim.Interpose(t, func(command []byte) []byte {
		if !interposed {
			return nil
		}
		return fromOther(t, devices[1], command)
	})
	m.with(t, func(prover *host.Prover) {
		if _, err := prover.Storage(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a root is on record that no server knows the voucher of (%v)", err)
	}
	m.with(t, func(prover *host.Prover) {
		before, err := prover.Storage(t.Context()) // of the record of keys that the interposer left
		if err != nil {
			t.Fatal(err)
		}
		interposed = false
		m.turnToNewRoot(t, prover)
		after, err := prover.Storage(t.Context())
		if err != nil || string(before.Root().Public) == string(after.Root().Public) {
			t.Errorf("the root is still the interposer's (%v)", err)
		}
		if _, err := after.Seal(t.Context(), []byte("secret"), tpm.SealPolicy{}); err != nil {
			t.Error(err)
		}
	})
}

func handleOf(command []byte) tpm2.TPMHandle {
	return tpm2.TPMHandle(uint32(command[10])<<24 | uint32(command[11])<<16 | uint32(command[12])<<8 | uint32(command[13]))
}

func fromOther(t *testing.T, sim *tpmsim.TPM, command []byte) []byte {
	t.Helper()
	response, err := sim.Send(command)
	if err != nil {
		t.Error(err)
	}
	return response
}

// Whatever the moment at which a renewal's context ends, nothing stays in the TPM.
func TestNothingIsLeftOfARenewal(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *tpmsim.TPM){"persistent root": persistRoot, "nothing persistent": func(t *testing.T, sim *tpmsim.TPM) {
		t.Helper()
		occupy(t, sim)
	}} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			prepare(t, sim)
			for n := 1; cancelledAt(t, sim, n); n++ {
				if left, err := sim.Leaks(); err != nil || len(left) != 0 {
					t.Fatalf("cancelled at command %d: %x left (%v)", n, left, err)
				}
			}
		})
	}
}

// cancelledAt is the first renewal of a host, cancelled at its nth command. It reports
// whether there was one.
func cancelledAt(t *testing.T, sim *tpmsim.TPM, n int) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := 0
	m := newMachine(t, sim)
	m.config.Device = sim.Interpose(t, func([]byte) []byte {
		if heard++; heard == n {
			cancel()
		}
		return nil
	})
	prover, err := host.Open(t.Context(), m.config)
	if err != nil {
		t.Fatal(err)
	}
	err = func() error {
		storage, err := prover.Storage(ctx)
		if err != nil {
			return err
		}
		key, err := issuer.NewKey(ctx, issuer.ModeResident, storage)
		if err != nil {
			return err
		}
		request, err := prover.Request(ctx, "keylime")
		if err != nil {
			return err
		}
		claim := host.Claim{Role: "keylime", Audience: audience, Keys: [][]byte{key.SPKI()}, Resident: map[string]tpm.Blob{string(key.SPKI()): *key.Resident()}}
		_, err = prover.Login(ctx, claim, newServer(attest.KindActivate).challenge(t, request))
		return err
	}()
	if closed := prover.Close(); closed != nil {
		t.Errorf("cancelled at command %d: %v", n, closed)
	}
	if heard < n && err != nil {
		t.Errorf("not cancelled, and still: %v", err)
	}
	return heard >= n
}
