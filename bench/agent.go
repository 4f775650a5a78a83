// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"funlab.casa/omen/bench/load"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

// pairs is how often a renewal and its bare parts are timed in turn.
const pairs = 7

// own are the steps in which the agent itself works: no network, no restart, no
// service that is asked.
var own = []agent.Step{agent.StepTPM, agent.StepKey, agent.StepCheck, agent.StepInstall}

// agentPart is the argument with which this program measures the agent, in a
// world of its own.
const agentPart = "agent"

// inWorld has this program start itself again in a world, as a part of it: the
// servers of other groups keep their data on a disk, which a world does not have.
func inWorld(ctx context.Context, b *bench, part string) (map[string]float64, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, part)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	cmd.Dir = filepath.Join(b.tools.Module, "bench")
	text, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	figures := map[string]float64{}
	return figures, json.Unmarshal(text, &figures)
}

// parts are what is measured in a world, on a host whose AK is pinned and persisted
// and whose services run.
var parts = map[string]func(context.Context, *story.Story) (map[string]float64, error){
	agentPart: func(ctx context.Context, s *story.Story) (map[string]float64, error) {
		f, err := renewals(ctx, s.Spire)
		if err == nil {
			f["agent_rss_mib"], err = idleMemory(ctx, s)
		}
		return f, err
	},
	servicesPart: func(ctx context.Context, s *story.Story) (map[string]float64, error) { return restarts(ctx, s.Spire) },
}

// inside measures in the world and prints the figures.
func inside(part string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &story.Story{}
	defer func() { _ = s.Close() }() // the kernel ends what is left
	// The story up to the first renewal: after it the AK is pinned and persisted.
	if err := s.Play(ctx, io.Discard, story.Steps()[:5]); err != nil {
		return err
	}
	figures, err := parts[part](ctx, s)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

// keepInFiles has the host keep its keys in files, which is what the bare parts do,
// and renews once.
func keepInFiles(ctx context.Context, h *world.Host) error {
	certificates := world.SpireCertificates()
	for i := range certificates {
		certificates[i].Key = "file"
	}
	if err := h.WriteAgentConfig(certificates); err != nil {
		return err
	}
	_, err := renew(ctx, h)
	return err
}

// renewals renews on a host whose AK is pinned and persisted.
func renewals(ctx context.Context, h *world.Host) (map[string]float64, error) {
	if err := keepInFiles(ctx, h); err != nil {
		return nil, err
	}
	f := map[string]float64{}
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
	f["agent_own_ms_per_certificate"] = load.Median(perCertificate)
	f["agent_own_over_bare_parts"] = load.Median(ratio)
	others, err := general(ctx, h)
	if err != nil {
		return nil, err
	}
	maps.Copy(f, others)
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

func binarySize(f map[string]float64, h *world.Host) error {
	info, err := h.Stat("/usr/bin/omen-agent")
	if err != nil {
		return err
	}
	f["agent_binary_mib"] = float64(info.Size()) / (1 << 20)
	return nil
}
