// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/test/world"
)

// pairs is how often a renewal and its bare parts are timed in turn.
const pairs = 7

// own are the steps in which the agent itself works: no network, no restart, no
// service that is asked.
var own = []agent.Step{agent.StepTPM, agent.StepKey, agent.StepCheck, agent.StepInstall}

// agentFigures renews on a host whose AK is pinned and persisted.
func agentFigures(ctx context.Context, h *world.Host) (figures, error) {
	f := figures{}
	var perCertificate, ratio []float64
	for range pairs {
		outcome, err := renew(ctx, h)
		if err != nil {
			return nil, err
		}
		parts, err := barely(ctx, h)
		if err != nil {
			return nil, err
		}
		var spent time.Duration
		for _, step := range own {
			spent += outcome.Spent[step]
		}
		perCertificate = append(perCertificate, spent.Seconds()*1000/float64(len(outcome.Renewed)))
		ratio = append(ratio, spent.Seconds()/parts.Seconds())
		f["tpm_commands_renewal_file"] = float64(commands(outcome))
	}
	f["agent_own_ms_per_certificate"] = median(perCertificate)
	f["agent_own_over_bare_parts"] = median(ratio)
	return f, binarySize(f, h)
}

func commands(o *agent.Outcome) (n int) {
	for _, count := range o.TPMCommands {
		n += count
	}
	return n
}

func renew(ctx context.Context, h *world.Host) (*agent.Outcome, error) {
	r, err := h.Must(ctx, "/usr/bin/omen-agent", "--config", world.AgentConfig, "--output", "json", "renew")
	if err != nil {
		return nil, err
	}
	o := new(agent.Outcome)
	if err := json.Unmarshal([]byte(r.Stdout), o); err != nil {
		return nil, fmt.Errorf("what renew printed: %w", err)
	}
	return o, nil
}

// barely runs this program's bare parts on the host: same TPM, same disk.
func barely(ctx context.Context, h *world.Host) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	r, err := h.Must(ctx, self, "bare", h.TPM.Socket(), "/var/lib/omen-agent/keylime")
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(r.Stdout)
}

func binarySize(f figures, h *world.Host) error {
	info, err := h.Stat("/usr/bin/omen-agent")
	if err != nil {
		return err
	}
	f["agent_binary_mib"] = float64(info.Size()) / (1 << 20)
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
