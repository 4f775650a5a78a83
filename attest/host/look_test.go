// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// TestLookOnly proves the host and keeps nothing of it, on the disk or in the TPM.
func TestLookOnly(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.LookOnly = true
	server := newServer(attest.KindActivate)
	var proof *attest.LoginRequest
	m.with(t, func(prover *host.Prover) {
		_, storageErr := prover.Storage(t.Context())
		var err error
		if proof, err = login(t.Context(), t, prover, server); errors.Join(err, storageErr) != nil {
			t.Fatal(err, storageErr)
		}
		if err := prover.Accepted(); err != nil {
			t.Error(err)
		}
	})
	server.accept(t, m.sim, proof)
	if _, err := os.Stat(m.config.StateDir); !os.IsNotExist(err) {
		t.Errorf("a record is kept: %v", err)
	}
	if _, err := (tpm2.ReadPublic{ObjectHandle: attest.AKHandle}).Execute(m.sim); err == nil {
		t.Error("the attestation key is kept in the TPM")
	}
}
