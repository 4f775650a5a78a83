// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"path/filepath"
)

// appliedName is the file of the configuration that the last renewal was of.
const appliedName = "applied.json"

// applied is what a renewal of all certificates was made from.
type applied struct {
	Configuration string `json:"configuration"` // see Agent.fingerprint
}

// apply writes down that everything is as it is configured.
func (a *Agent) apply() {
	a.applied = &applied{a.fingerprint()}
	if err := a.keep(appliedName, a.applied); err != nil {
		a.log.Warn("what is configured is not written down", "error", err)
	}
}

// reconfigured reports that the last renewal was made from another configuration than
// this agent's. What is written down is read once: who renews by hand from another
// agent.toml meanwhile is not taken back. A record that is lost, or wrong, costs
// nothing, or one renewal.
func (a *Agent) reconfigured() bool {
	if a.applied == nil {
		a.applied = new(applied)
		if text, err := readSmall(filepath.Join(a.state, appliedName)); err != nil || json.Unmarshal(text, a.applied) != nil {
			a.applied.Configuration = a.fingerprint()
		}
	}
	return a.applied.Configuration != a.fingerprint()
}
