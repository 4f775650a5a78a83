// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/remedy"
)

// Forgotten tells what Forget took away.
type Forgotten struct {
	AKEvicted bool   `json:"ak_evicted"` // the TPM held our attestation key
	State     string `json:"state"`      // the folder that is gone
}

// Forget takes what this agent keeps off the host: its persistent key in the TPM
// and its state. It is refused while certificates of ours are installed, whose
// sealed keys would not come back at the next boot. OpenBao is not told: its
// record of this host stays until an operator deletes it.
func (a *Agent) Forget(ctx context.Context) (forgotten *Forgotten, err error) {
	if err := a.nothingInstalled(); err != nil {
		return nil, at(StepInstall, "", err)
	}
	prover, err := a.openTPM(ctx, nil)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	evicted, err := prover.Forget(ctx)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	if err := os.RemoveAll(a.state); err != nil {
		return nil, at(StepTPM, "", fmt.Errorf("remove state: %w", err))
	}
	return &Forgotten{AKEvicted: evicted, State: a.state}, nil
}

func (a *Agent) nothingInstalled() error {
	orphans, err := a.orphans()
	if err != nil {
		return err
	}
	for _, s := range append(a.sets(), orphans...) {
		current, err := s.install.Current()
		if err == nil {
			return remedy.Errorf("omen-agent uninstall puts the host back as it was found; then forget",
				"generation %d of set %s is installed", current.Generation, s.name)
		}
		if !errors.Is(err, install.ErrNotInstalled) {
			return err
		}
	}
	return nil
}
