// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"

	"funlab.casa/omen/install"
)

func serviceChecks() []Check {
	return []Check{{
		Name: "served", Area: AreaService, needs: []string{"certificates-installed"}, patience: long, run: checkServed,
		Asks:   "what omen-agent verify asks of this host's services: what is installed is served, strangers are refused, a client gets in. Agents elsewhere are not asked",
		Remedy: "omen-agent verify; then restart what serves another certificate",
	}}
}

func checkServed(ctx context.Context, p *patient) []Result {
	return eachOf(p.agent.Served(ctx), "no service is configured", func(f install.Finding) []Result {
		if f.Err != nil {
			return problem(f.Certificate, p.hint(f.Err), "%s: %v", f.Check, f.Err)
		}
		return ok(f.Certificate, "%s %s", f.Check, f.Detail)
	})
}
