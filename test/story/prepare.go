// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"errors"
	"fmt"

	"funlab.casa/omen/test/world"
)

// BuildWorld starts the hosts spire and auth.
func BuildWorld(ctx context.Context, s *Story) (told string, err error) {
	if s.World, err = world.New(); err != nil {
		return "", err
	}
	if s.Spire, err = s.World.AddHost(ctx, world.Spire, world.SpireIP); err != nil {
		return "", err
	}
	if s.Auth, err = s.World.AddHost(ctx, world.Auth, world.AuthIP); err != nil {
		return "", err
	}
	return fmt.Sprintf("spire is %s, auth is %s: real paths and ports, nothing of this machine", s.Spire.IP, s.Auth.IP), nil
}

// StartOpenBao starts the server on spire.
func StartOpenBao(ctx context.Context, s *Story) (string, error) {
	if err := s.World.StartOpenBao(ctx, s.Spire, world.StoryNames()); err != nil {
		return "", err
	}
	return world.BaoAddress + ": raft, static seal, plugin pinned by SHA-256, a PKI role for each host and usage", nil
}

// InstallKeylime lays Keylime's files and omen-agent's configuration on both
// hosts. Nothing of Keylime runs.
func InstallKeylime(ctx context.Context, s *Story) (string, error) {
	err := errors.Join(
		s.World.InstallKeylime(ctx, s.Spire, world.Verifier, world.Registrar, world.Tenant),
		s.World.InstallKeylime(ctx, s.Auth, world.Agent),
		s.Spire.WriteAgentConfig(world.SpireCertificates()),
		s.Auth.WriteAgentConfig(world.AuthCertificates()),
	)
	if err != nil {
		return "", err
	}
	for _, h := range []*world.Host{s.Spire, s.Auth} {
		if h.Exists(world.CertsDir) {
			return "", fmt.Errorf("%s has a %s already", h.Name, world.CertsDir)
		}
	}
	return "stock configuration but for the addresses; user keylime; " + world.CertsDir + " is not there", nil
}

// Enrol puts both hosts on the allow-list, each with the PCR values it has now.
func Enrol(ctx context.Context, s *Story) (told string, err error) {
	for _, h := range []*world.Host{s.Spire, s.Auth} {
		id, err := h.Identify(ctx)
		if err != nil {
			return "", err
		}
		if err := s.World.Bao.Enrol(ctx, h.Name, id); err != nil {
			return "", err
		}
		told += fmt.Sprintf("%s is %.19s…, ", h.Name, id.TPMID)
	}
	return told + "both with the PCRs of this boot", nil
}
