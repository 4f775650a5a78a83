// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// secret has the size of a P-256 key in SEC 1.
var secret = bytes.Repeat([]byte{7}, 121)

// event is what the tests extend a PCR with.
var event = bytes.Repeat([]byte{1}, 32)

// present is the policy of one PCR as it is now.
func present(t *testing.T, sim *tpmsim.TPM, pcr int) tpm.SealPolicy {
	t.Helper()
	value, err := sim.PCR(pcr, tpm2.TPMAlgSHA256)
	if err != nil {
		t.Fatal(err)
	}
	return tpm.SealPolicy{Bank: tpm2.TPMAlgSHA256, PCRs: []int{pcr}, States: [][][]byte{{value}}}
}

// or adds states to a policy of one PCR: the one after event first, then n-2 that
// never come.
func or(policy tpm.SealPolicy, n int) tpm.SealPolicy {
	next := sha256.Sum256(append(bytes.Clone(policy.States[0][0]), event...))
	policy.States = append(policy.States[:1:1], [][]byte{next[:]})
	for i := 2; i < n; i++ {
		policy.States = append(policy.States, [][]byte{bytes.Repeat([]byte{byte(i)}, 32)})
	}
	return policy
}

// A secret comes back in the states it was sealed to and in no other, for the
// commands that this takes and none beside.
func TestSecretComesBackInItsStates(t *testing.T) {
	sim := tpmsim.Start(t)
	persistRoot(t, sim)
	here := present(t, sim, 7)
	policies := map[string]tpm.SealPolicy{"any": {}, "here": here, "8 states": or(here, 8)}
	for n := 2; n < tpm.MaxStates; n++ {
		policies[fmt.Sprintf("%d states", n)] = or(here, n)
	}
	opened, counter := open(t, sim)
	storage := findRoot(t, opened, nil)
	sealed := map[string]tpm.Blob{}
	for name, policy := range policies {
		counter.Reset()
		blob, err := storage.Seal(t.Context(), secret, policy)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantCounts(t, counter, "sealing for "+name, map[string]int{"StartAuthSession": 1, "Create": 1})
		got, err := storage.Unseal(t.Context(), blob, policy)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: %v", name, err)
		}
		wantCounts(t, counter, "unsealing for "+name, unsealing(policy))
		sealed[name] = blob
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sim.Extend(7, tpm2.TPMAlgSHA256, event); err != nil {
		t.Fatal(err)
	}
	opened, _ = open(t, sim)
	storage = findRoot(t, opened, nil)
	for name, policy := range policies {
		got, err := storage.Unseal(t.Context(), sealed[name], policy)
		switch {
		case name == "here" && !errors.Is(err, tpm.ErrState):
			t.Errorf("after a change nobody announced: %v", err)
		case name != "here" && (err != nil || !bytes.Equal(got, secret)):
			t.Errorf("%s, in the announced state: %v", name, err)
		}
	}
	if _, err := storage.Unseal(t.Context(), sealed["here"], tpm.SealPolicy{}); err == nil {
		t.Error("without its policy the secret was given out")
	}
	if _, err := storage.Unseal(t.Context(), sealed["here"], policies["2 states"]); !errors.Is(err, tpm.ErrState) {
		t.Errorf("by another policy: %v", err)
	}
}

// unsealing is what it costs with a persistent root.
func unsealing(policy tpm.SealPolicy) map[string]int {
	want := map[string]int{"Load": 1, "StartAuthSession": 1, "Unseal": 1, "FlushContext": 1}
	if len(policy.States) > 0 {
		want["PolicyPCR"], want["FlushContext"] = 1, 2
	}
	if len(policy.States) > 1 {
		want["PolicyOR"] = 1
	}
	return want
}

// Where the root is made for each use, two commands are added.
func TestCostWithoutPersistentRoot(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, counter := open(t, sim)
	storage := findRoot(t, opened, nil)
	counter.Reset()
	blob, err := storage.Seal(t.Context(), secret, tpm.SealPolicy{})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, counter, "sealing", map[string]int{"CreatePrimary": 1, "StartAuthSession": 1, "Create": 1, "FlushContext": 1})
	if _, err := storage.Unseal(t.Context(), blob, tpm.SealPolicy{}); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, counter, "unsealing", map[string]int{"CreatePrimary": 1, "Load": 1, "StartAuthSession": 1, "Unseal": 1, "FlushContext": 2})
}

func TestWhatCannotBeSealed(t *testing.T) {
	sim := tpmsim.Start(t)
	here := present(t, sim, 7)
	opened, counter := open(t, sim)
	storage := findRoot(t, opened, nil)
	counter.Reset()
	short, nine, twice, far, empty := here, or(here, 9), here, here, here
	short.States = [][][]byte{{{1}}}
	twice.PCRs, twice.States = []int{7, 7}, [][][]byte{{here.States[0][0], here.States[0][0]}}
	far.PCRs = []int{24}
	empty.PCRs = nil
	for name, row := range map[string]struct {
		secret []byte
		policy tpm.SealPolicy
	}{
		"nothing": {nil, here}, "too much": {make([]byte, tpm.MaxSecret+1), here},
		"a value of another bank": {secret, short}, "nine states": {secret, nine}, "a PCR twice": {secret, twice},
		"a PCR that is not there": {secret, far}, "states of no PCRs": {secret, empty},
		"PCRs without a state": {secret, tpm.SealPolicy{Bank: tpm2.TPMAlgSHA256, PCRs: []int{7}}},
	} {
		if _, err := storage.Seal(t.Context(), row.secret, row.policy); err == nil {
			t.Errorf("%s was sealed", name)
		}
	}
	if counter.Total() != 0 {
		t.Errorf("the TPM was asked: %v", counter.Counts())
	}
}

// A running system extends PCRs all the time. One that the policy does not name
// costs another try; one that it names decides.
func TestPCRMovesBeforeUnseal(t *testing.T) {
	for name, row := range map[string]struct {
		pcr   int // that moves
		often int
		want  error
	}{
		"another": {10, 3, nil}, "another, all the time": {10, 100, tpm.ErrPCRMoved}, "the policy's": {7, 1, tpm.ErrState},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			here := present(t, sim, 7)
			moves := 0
			device := sim.Interpose(t, func(command []byte) []byte {
				if tpm.CommandName(command) == "Unseal" && moves < row.often {
					moves++
					if err := sim.Extend(row.pcr, tpm2.TPMAlgSHA256, event); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			opened, _ := open(t, sim, func(c *tpm.Config) { c.Device = device })
			storage := findRoot(t, opened, nil)
			blob, err := storage.Seal(t.Context(), secret, here)
			if err != nil {
				t.Fatal(err)
			}
			got, err := storage.Unseal(t.Context(), blob, here)
			if !errors.Is(err, row.want) || row.want == nil && !bytes.Equal(got, secret) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// Another program persists a storage root, or takes it away: what was sealed before
// comes back all the same, by the record of the time after or of the time before.
func TestSecretOfTheOtherRoot(t *testing.T) {
	t.Run("another root was persisted", func(t *testing.T) {
		sim := tpmsim.Start(t)
		blob, policy, _ := sealOn(t, sim)
		if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.ECCSRKTemplate); err != nil {
			t.Fatal(err)
		}
		checkComesBack(t, sim, nil, blob, policy)
	})
	t.Run("the root was evicted", func(t *testing.T) {
		sim := tpmsim.Start(t)
		persistRoot(t, sim)
		blob, policy, known := sealOn(t, sim)
		if err := sim.Evict(tpm.SRKHandle); err != nil {
			t.Fatal(err)
		}
		checkComesBack(t, sim, known, blob, policy)
	})
}

// sealOn seals to PCR 7 as it is.
func sealOn(t *testing.T, sim *tpmsim.TPM) (tpm.Blob, tpm.SealPolicy, *tpm.StorageRoot) {
	t.Helper()
	policy := present(t, sim, 7)
	opened, _ := open(t, sim)
	storage := findRoot(t, opened, nil)
	blob, err := storage.Seal(t.Context(), secret, policy)
	known := storage.Root()
	if err := errors.Join(err, opened.Close()); err != nil {
		t.Fatal(err)
	}
	return blob, policy, known
}

// checkComesBack wants the secret now, and not in another state of the machine.
func checkComesBack(t *testing.T, sim *tpmsim.TPM, known *tpm.StorageRoot, blob tpm.Blob, policy tpm.SealPolicy) {
	t.Helper()
	opened, _ := open(t, sim)
	if got, err := findRoot(t, opened, known).Unseal(t.Context(), blob, policy); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(opened.Close(), sim.Extend(7, tpm2.TPMAlgSHA256, event)); err != nil {
		t.Fatal(err)
	}
	opened, _ = open(t, sim)
	if _, err := findRoot(t, opened, known).Unseal(t.Context(), blob, policy); !errors.Is(err, tpm.ErrState) {
		t.Errorf("in another state: %v", err)
	}
}
