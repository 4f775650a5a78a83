// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/ecdsa"
	"fmt"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
)

// agentPaths are where packages put the agent, for when nothing else says.
var agentPaths = []string{"/usr/bin/keylime_agent", "/usr/local/bin/keylime_agent"}

// checkAgentVersion refuses the first EC key for an agent that is older than
// rust-keylime 0.2.9 or of unknown version. Once we have switched it, its
// answers to a plain /version are gone, and the question is settled. Generation 0
// is what people had installed, and settles nothing.
func (i *Installer) checkAgentVersion(ctx context.Context, p *plan, number int, before []beneath.File) error {
	m := p.find(keylime.Agent)
	if m == nil || m.fresh == nil || !hasECKey(m.fresh) || number > 0 && switchedBefore(m.item.Name, before) {
		return nil
	}
	for _, s := range p.services {
		if s.profile.Name == keylime.Agent {
			return i.learnVersion(ctx, s, m.item.AgentVersion)
		}
	}
	return nil
}

// learnVersion asks the agent itself, then the packages, then the configuration.
func (i *Installer) learnVersion(ctx context.Context, agent served, configured string) error {
	const hint = "install rust-keylime 0.2.9 or later (of an agent that no package owns, say so: agent_version = \"0.2.9\" in [[certificate]])"
	if versions, err := probe.PlainVersion(ctx, agent.address); err == nil && versions.Known() {
		if keylime.APIUsesEC(versions.One, versions.Supported) {
			return nil
		}
		return remedy.Errorf(hint, "%w: %s answers with API %q, rust-keylime 0.2.9 begins at 2.5", keylime.ErrOldAgent, agent.address, versions.One)
	}
	version, source := configured, "agent_version in the configuration"
	for _, path := range append(agent.controller.Executables(), agentPaths...) {
		if packaged, err := keylime.PackageVersion(ctx, i.root(), path); err == nil {
			version, source = packaged, "the package of "+path
			break
		}
	}
	if version == "" {
		return remedy.Errorf(hint, "%w: its version is not known: mTLS is already on, no package owns it, agent_version is not configured", keylime.ErrOldAgent)
	}
	enough, err := keylime.UsesEC(version)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if !enough {
		return remedy.Errorf(hint, "%w: it is %s, says %s; every quote would fail before 0.2.9", keylime.ErrOldAgent, version, source)
	}
	return nil
}

func hasECKey(p *keypair.Pair) bool {
	_, isEC := p.Leaf().PublicKey.(*ecdsa.PublicKey)
	return isEC
}

// switchedBefore reports that the set before, one of ours, gave the agent an EC
// certificate already.
func switchedBefore(name string, before []beneath.File) bool {
	certificate, found := fileset.Find(before, name+".crt")
	if !found {
		return false
	}
	chain, err := keypair.ParseCertificates(certificate.Content)
	return err == nil && len(chain) > 0 && hasECKey(&keypair.Pair{Chain: chain})
}
