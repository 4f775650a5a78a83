// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/agent"
)

// Each trouble with a TPM that somebody can end has its remedy, at the step where it
// shows.
func TestTPMTroubleHasARemedy(t *testing.T) {
	for _, row := range []struct {
		cause error
		step  agent.Step
		code  int
		words string
	}{
		{host.ErrBusy, agent.StepTPM, exitTPM, "tpm2_flushcontext"},
		{host.ErrNoAnswer, agent.StepTPM, exitTPM, "power cycle"},
		{host.ErrAuth, agent.StepTPM, exitTPM, "owner_auth_file"},
		{host.ErrStorage, agent.StepKey, exitIssuing, "omen-agent renew"},
		{host.ErrState, agent.StepKey, exitIssuing, "omen-agent announce"},
		{host.ErrNoRecord, agent.StepKey, exitIssuing, "omen-agent renew"},
	} {
		err := &agent.StepError{Step: row.step, Certificate: "verifier", Err: fmt.Errorf("unseal: %w", row.cause)}
		if got := hint(err); !strings.Contains(got, row.words) || exitCode(err) != row.code {
			t.Errorf("%v: exit code %d, hint %q", row.cause, exitCode(err), got)
		}
	}
}
