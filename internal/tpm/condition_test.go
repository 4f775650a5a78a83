// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

func condition(t *testing.T, sim *tpmsim.TPM) *tpm.Condition {
	t.Helper()
	opened, _ := open(t, sim)
	found, err := opened.Condition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCondition sees what somebody else did to the TPM.
func TestCondition(t *testing.T) {
	sim := tpmsim.Start(t)
	before := condition(t, sim)
	if before.LockedOut || before.FailedTries != 0 || before.MaxTries == 0 || before.Recovery == 0 || before.OwnerAuth || before.EndorsementAuth ||
		before.FreeObjects == 0 || before.FreeSessions == 0 || before.FreePersistent == 0 || !slices.Contains(before.Banks, "sha256") {
		t.Fatalf("a new TPM: %+v", before)
	}
	handles, err := sim.Occupy(int(before.FreeObjects))
	if err != nil {
		t.Fatal(err)
	}
	if full := condition(t, sim); full.FreeObjects != 0 {
		t.Errorf("full: %+v", full)
	}
	if err := sim.Flush(handles...); err != nil {
		t.Fatal(err)
	}
	if err := sim.LockOut(); err != nil {
		t.Fatal(err)
	}
	if locked := condition(t, sim); !locked.LockedOut || locked.FailedTries < locked.MaxTries {
		t.Errorf("locked out: %+v", locked)
	}
	if err := sim.SetAuth(tpm2.TPMRHOwner, "secret"); err != nil {
		t.Fatal(err)
	}
	if owned := condition(t, sim); !owned.OwnerAuth || owned.EndorsementAuth {
		t.Errorf("owned: %+v", owned)
	}
}

func TestPublic(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, _ := open(t, sim)
	if public, err := opened.Public(t.Context(), tpm.SRKHandle); err != nil || public != nil {
		t.Errorf("an empty handle: %x, %v", public, err)
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm.RootTemplate())
	if err != nil {
		t.Fatal(err)
	}
	opened, _ = open(t, sim)
	if public, err := opened.Public(t.Context(), tpm.SRKHandle); err != nil || !bytes.Equal(public, want) {
		t.Errorf("%x, %v", public, err)
	}
}
