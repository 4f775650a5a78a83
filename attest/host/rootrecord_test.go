// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// An unseal without record asks no TPM; nor does the doubt of a renewal that fails
// take the record away.
func TestRootRecord(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	blob := m.seal(t)
	path := filepath.Join(m.config.StateDir, host.RootRecordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	m.with(t, func(prover *host.Prover) {
		if err := prover.DoubtStorage(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := prover.Storage(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
		t.Errorf("a renewal that did not get in changed the record (%v)", err)
	}
	for name, text := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "of another parent": append([]byte{0x81, 0, 0, 2}, good[4:]...),
		"of another template": append(bytes.Clone(good[:38]), bytes.Repeat([]byte{1}, len(good)-38)...),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.unseal(t, blob); !errors.Is(err, host.ErrNoRecord) || m.commands.Total() != 0 {
			t.Errorf("%s: %v after %v", name, err, m.commands.Counts())
		}
	}
	m.renewKey(t, attest.KindKnown)
	if err := m.unseal(t, blob); err != nil {
		t.Errorf("after the next renewal: %v", err)
	}
}

// A record that another attestation key vouched for is not believed by a renewal.
func TestRootOfAnotherVoucher(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	persistRoot(t, m.sim)
	m.renewKey(t, attest.KindKnown)
	path := filepath.Join(m.config.StateDir, host.RootRecordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bent := bytes.Clone(good)
	bent[10] ^= 1
	if err := os.WriteFile(path, bent, 0o600); err != nil {
		t.Fatal(err)
	}
	m.renewKey(t, attest.KindKnown)
	if m.commands.Counts()["Certify"] != 2 { // of the root, and of the key
		t.Errorf("sent %v", m.commands.Counts())
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
		t.Errorf("the record was not mended (%v)", err)
	}
}

// A root that becomes persistent is used where it lies from then on.
func TestRootBecomesPersistent(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	blob := m.seal(t)
	persistRoot(t, m.sim)
	for range 2 {
		m.renewKey(t, attest.KindKnown)
	}
	if m.commands.Total() != 5 {
		t.Errorf("sent %v", m.commands.Counts())
	}
	if err := m.unseal(t, blob); err != nil {
		t.Error(err)
	}
}

// A key that was made under something else than the root on record is noticed when it
// is certified: its file would name a parent that is not its own.
func TestKeyUnderAnotherRoot(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	persistRoot(t, m.sim)
	m.renewKey(t, attest.KindKnown)
	if err := m.sim.Evict(tpm.SRKHandle); err != nil {
		t.Fatal(err)
	}
	if _, err := m.sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.RSASRKTemplate); err != nil {
		t.Fatal(err)
	}
	m.with(t, func(prover *host.Prover) {
		if _, err := m.certifyKey(t, prover, attest.KindKnown); !errors.Is(err, host.ErrStorage) {
			t.Errorf("error is %v", err)
		}
		m.turnToNewRoot(t, prover)
		storage, err := prover.Storage(t.Context())
		if err != nil || storage.Parent() != tpm2.TPMRHOwner {
			t.Errorf("not the standard key (%v)", err)
		}
	})
}
