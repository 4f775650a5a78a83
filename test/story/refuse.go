// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/test/world"
)

// refusedByServer is omen-agent's exit code for a refusal.
const refusedByServer = 3

// RefuseStranger adds a third host, with a good TPM that nobody enrolled.
func RefuseStranger(ctx context.Context, s *Story) (string, error) {
	const name, address = "stranger", "10.10.2.80"
	h, err := s.World.AddHost(ctx, name, address)
	if err != nil {
		return "", err
	}
	if err := s.World.InstallKeylime(ctx, h, world.Agent); err != nil {
		return "", err
	}
	if err := h.WriteAgentConfig([]world.Certificate{world.AgentCertificate(address)}); err != nil {
		return "", err
	}
	result, err := renewRefused(ctx, h, "host-unknown")
	if err != nil {
		return "", err
	}
	if h.Exists(world.CertsDir) {
		return "", fmt.Errorf("%s has certificates", name)
	}
	return "stranger: " + result, nil
}

// RefuseMovedPCR measures something new into PCR 7 of auth, as another Secure
// Boot policy would, and wants the old certificate to stay.
func RefuseMovedPCR(ctx context.Context, s *Story) (string, error) {
	agent := s.Endpoints()[2]
	before, err := agent.Host.Installed(agent.Name)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte("another Secure Boot policy"))
	if err := s.Auth.TPM.Extend(7, tpm2.TPMAlgSHA256, digest[:]); err != nil {
		return "", err
	}
	result, err := renewRefused(ctx, s.Auth, "boot-policy")
	if err != nil {
		return "", err
	}
	after, err := agent.Host.Installed(agent.Name)
	if err != nil {
		return "", err
	}
	if !after.Equal(before) {
		return "", fmt.Errorf("auth has another certificate after a refusal")
	}
	if err := s.checkServed(ctx, agent); err != nil {
		return "", err
	}
	return "auth: " + result + "; its old certificate stays and is served", nil
}

// renewRefused wants a refusal by this rule, said in an error with a hint.
func renewRefused(ctx context.Context, h *world.Host, rule string) (told string, err error) {
	result, err := Renew(ctx, h, refusedByServer)
	if err != nil {
		return "", err
	}
	for _, want := range []string{"error: ", rule, "hint: "} {
		if !strings.Contains(result.Stderr, want) {
			return "", fmt.Errorf("%s: no %q in what omen-agent says:\n%s", h.Name, want, result.Stderr)
		}
	}
	return fmt.Sprintf("refused as %s, exit code %d", rule, result.Code), nil
}
