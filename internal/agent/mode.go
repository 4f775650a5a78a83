// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// chooseModes decides what auto means for each order, before its key is made. A TPM
// that is in somebody's way just now is an error: no key is made weaker for that.
func (a *Agent) chooseModes(ctx context.Context, prover *host.Prover, orders []*order) error {
	for _, o := range orders {
		if o.mode != issuer.ModeAuto {
			continue
		}
		var policy issuer.Policy
		var cannot error
		if o.cert.NoTPMKey() != "" {
			if policy, cannot = a.sealPolicy(ctx, prover); cannot == nil {
				cannot = a.install.InMemory()
			}
		}
		if cannot == nil {
			cannot = a.underRoot(ctx, prover, func() error { return try(ctx, prover, policy) })
		}
		if passing(ctx, cannot) {
			return at(StepTPM, o.cert.Name, cannot)
		}
		o.mode, o.why = strongest(o.cert, cannot)
		if cannot != nil {
			a.log.Warn("the key is kept in a file", "certificate", o.cert.Name, "cause", cannot)
		}
	}
	return nil
}

// strongest is what auto means for a certificate: in the TPM where what reads the
// key can use one there, else sealed, else, where cannot says why this host can do
// neither, a file.
func strongest(c *config.Certificate, cannot error) (mode issuer.Mode, why string) {
	switch reader := c.NoTPMKey(); {
	case cannot != nil:
		return issuer.ModeFile, fmt.Sprintf("this host cannot do better: %v", cannot)
	case reader != "":
		return issuer.ModeSealed, "no key in the TPM: " + reader
	default:
		return issuer.ModeResident, "loads_tss2 says that what reads the key can use one in the TPM"
	}
}

// try has the TPM keep something under policy, to see whether it can.
func try(ctx context.Context, prover *host.Prover, policy issuer.Policy) error {
	storage, err := prover.Storage(ctx)
	if err != nil {
		return err
	}
	_, err = storage.Seal(ctx, []byte{0}, policy)
	return err
}

// passing reports whether the TPM failed for a reason that goes away or that
// somebody has to put right, and not for what it is.
func passing(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	for _, cause := range []error{host.ErrAbsent, host.ErrBusy, host.ErrDenied, host.ErrNoAnswer, host.ErrPCRMoved, host.ErrStorage} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
