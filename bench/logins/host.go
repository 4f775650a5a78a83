// SPDX-License-Identifier: Apache-2.0

package logins

import (
	"context"
	"fmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/bench/load"
)

// role is the role of every method here.
const role = "bench"

// A fleet is a number of hosts with honest TPMs in software, whose endorsement
// keys one vendor certifies.
type fleet struct {
	vendor string // PEM
	tpms   []*attacker.TPM
}

func newFleet(hosts int) (*fleet, error) {
	vendor, err := attacker.NewVendor(attacker.P256)
	if err != nil {
		return nil, err
	}
	f := &fleet{vendor: vendor.PEM()}
	for range hosts {
		tpm, err := attacker.NewTPM(vendor, attacker.P256)
		if err != nil {
			return nil, err
		}
		f.tpms = append(f.tpms, tpm)
	}
	return f, nil
}

// conversation is a login of the tpm method, or of the plugin that takes its
// place: the caller does the same work for both.
func conversation(ctx context.Context, caller *load.Caller, mount, audience string, tpm *attacker.TPM) error {
	request, err := tpm.Request(role)
	if err != nil {
		return err
	}
	var challenged struct {
		Data attest.Challenge `json:"data"`
	}
	if err := caller.Write(ctx, mount+"/challenge", request, &challenged); err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	answer, err := tpm.Answer(&challenged.Data, attacker.Login{Role: role, Audience: audience})
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := caller.Write(ctx, mount+"/login", answer, nil); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return nil
}
