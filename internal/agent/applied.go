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
	Configuration string `json:"configuration"` // see Agent.fingerprint; "": of none as a whole
}

// apply writes down that everything is as it is configured.
func (a *Agent) apply() {
	a.writeApplied(applied{a.fingerprint()})
}

func (a *Agent) writeApplied(what applied) {
	a.applied = &what
	if err := a.keep(appliedName, a.applied); err != nil {
		a.log.Warn("what is configured is not written down", "error", err)
	}
}

// reconfigured reports that the last renewal was made from another configuration than
// this agent's, or some certificates from one and some from the other. What is written
// down is read once: who renews by hand from another agent.toml meanwhile is not taken
// back. Where nothing is, everything is as this agent would make it, from now on.
func (a *Agent) reconfigured() bool {
	if !a.readApplied() {
		a.apply()
	}
	return a.applied.Configuration != a.fingerprint()
}

// readApplied reports whether it is known what the last renewal was made from.
func (a *Agent) readApplied() bool {
	if a.applied != nil {
		return true
	}
	var what applied
	text, err := readSmall(filepath.Join(a.state, appliedName))
	if err != nil || json.Unmarshal(text, &what) != nil {
		return false
	}
	a.applied = &what
	return true
}

// applyInPart writes down that some certificates are of this configuration: others may
// be of the one before, and neither is what is installed.
func (a *Agent) applyInPart() {
	if a.readApplied() && a.applied.Configuration != a.fingerprint() {
		a.writeApplied(applied{})
	}
}
