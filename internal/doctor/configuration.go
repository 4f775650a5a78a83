// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"os"

	"funlab.casa/omen/internal/config"
)

func configurationChecks() []Check {
	return []Check{
		{
			Name: "root", Area: AreaConfiguration, run: checkRoot,
			Asks:   "the doctor is root: what nobody else may read looks as if it were not there",
			Remedy: "sudo omen-agent doctor",
		},
		{
			Name: "configuration", Area: AreaConfiguration, run: checkConfiguration,
			Asks:   "agent.toml is there, is root's alone to write, and every value in it is right",
			Remedy: "correct the line that is named; docs/configuration.md lists the keys",
		},
		{
			Name: "configuration-files", Area: AreaConfiguration, run: checkConfigurationFiles,
			Asks:   "the files that agent.toml names hold what they should: roots, CAs, authorisation values, EK certificates",
			Remedy: "put the right content into the file that is named",
		},
	}
}

func checkRoot(_ context.Context, _ *patient) []Result {
	if uid := os.Geteuid(); uid != 0 {
		return problem("", "", "run by user %d: much is not looked at", uid)
	}
	return ok("", "everything can be looked at")
}

// checkConfiguration tells every fault. That there is none is for config.Load to say.
func checkConfiguration(_ context.Context, p *patient) []Result {
	faults := p.faults
	if len(faults) == 0 {
		if _, err := config.Load(p.path); err != nil {
			faults = []error{err}
		}
	}
	if len(faults) == 0 {
		return ok(p.path, "%d certificates", len(p.config.Certificates))
	}
	return eachOf(faults, "", func(err error) []Result { return p.failed("", err) })
}

func checkConfigurationFiles(_ context.Context, p *patient) []Result {
	if len(p.fileFaults) == 0 {
		return ok("", "those that are named are as they should be")
	}
	return eachOf(p.fileFaults, "", func(err error) []Result { return p.failed("", err) })
}
