// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// Audience is the server for which every proof here is made.
const Audience = "https://bao.example.org:8200||auth/tpm"

// A Machine is a host with a TPM of its own vendor, booted with a given log.
type Machine struct {
	Root, Issuer *x509.Certificate // the vendor's
	Log          []byte            // the event log, as firmware gives it

	tpm *tpmsim.TPM
	dir string
}

// Boot makes a TPM and boots it with the event log: each event is extended.
func Boot(log []byte) (m *Machine, err error) {
	dir, err := os.MkdirTemp("", "proof")
	if err != nil {
		return nil, err
	}
	m = &Machine{Log: log, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	vendor, err := tpmsim.NewCA(filepath.Join(dir, "vendor"))
	if err != nil {
		return m, err
	}
	m.Root, m.Issuer = vendor.Root(), vendor.Issuer()
	state, err := vendor.Manufacture("bench")
	if err != nil {
		return m, err
	}
	if m.tpm, err = state.Start(tpmsim.Options{}); err != nil {
		return m, err
	}
	return m, errors.Join(m.tpm.Replay(log), os.WriteFile(m.logFile(), log, 0o600))
}

func (m *Machine) logFile() string { return filepath.Join(m.dir, "log") }

// Close switches the TPM off and removes it.
func (m *Machine) Close() error {
	var stopped error
	if m.tpm != nil {
		stopped = m.tpm.Stop()
	}
	return errors.Join(stopped, os.RemoveAll(m.dir))
}

// open is the agent's own prover, on this machine.
func (m *Machine) open(ctx context.Context) (*host.Prover, error) {
	return host.Open(ctx, host.Config{Device: m.tpm.Device(), EK: "rsa2048", EventLog: m.logFile()})
}
