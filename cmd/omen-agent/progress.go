// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"funlab.casa/omen/internal/agent"
)

// doing says in words what is done in a step.
var doing = map[agent.Step]string{
	agent.StepTPM:       "asking the TPM",
	agent.StepKey:       "making keys",
	agent.StepChallenge: "asking OpenBao for a challenge",
	agent.StepLogin:     "proving this host",
	agent.StepSign:      "having keys signed",
	agent.StepCheck:     "judging the certificates",
	agent.StepInstall:   "installing",
	agent.StepReload:    "restarting services",
	agent.StepProbe:     "asking what is served",
}

// progress shows the steps of an agent's work: on a terminal as one line that
// changes, else as a line of the log for each step that is new. The function that is
// returned takes the line away.
func (j *job) progress(a *agent.Agent) (end func()) {
	if j.bottom == nil {
		a.Progress = j.logSteps()
		return func() {}
	}
	a.Progress = func(step agent.Step) {
		all := agent.Steps()
		j.bottom.show(fmt.Sprintf("%d/%d %s: %s…", slices.Index(all, step)+1, len(all), step, doing[step]))
	}
	return func() { j.bottom.show("") }
}

func (j *job) logSteps() func(agent.Step) {
	var said []agent.Step
	return func(step agent.Step) {
		if !slices.Contains(said, step) {
			said = append(said, step)
			j.log.Info(doing[step], "step", string(step))
		}
	}
}
