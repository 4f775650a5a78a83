// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
)

// reactivatedName is the record of agents that were reactivated, beside the
// generations.
const reactivatedName = "reactivated"

// reactivations says for which change of certificates each agent was reactivated,
// so that nobody is twice.
type reactivations struct {
	Version int                  `json:"version"`
	Agents  map[string]time.Time `json:"agents"` // by UUID
}

func (r *reactivations) Check() error {
	if r.Version != 1 || len(r.Agents) > maxReactivated {
		return errors.New("record of reactivated agents of another version, or too long")
	}
	return nil
}

// maxReactivated bounds the record.
const maxReactivated = 4096

// switched is when the current set became current: by an installation, or by the
// way back from one.
func (i *Installer) switched() (time.Time, error) {
	s, _, err := i.openCurrent()
	if err != nil {
		return time.Time{}, err
	}
	defer s.Close()
	return s.Switched()
}

// reactivate has the verifier ask an agent again that it has given up, and says
// that it did. It does so where the agent was still attested when certificates
// changed last, those of the verifier's host or the agent's own, and once for each
// change: an agent that was given up before is not our doing, and one that is given
// up again needs people.
func (w *watch) reactivate(ctx context.Context, agent string, state probe.Attestation, issued time.Time) (string, error) {
	change := w.lastChange(state, issued)
	if change.IsZero() {
		return "", errStays(agent, "operational_state %s since before certificates changed here or there; last attested %s",
			state.State, time.Unix(state.Last, 0).UTC().Format(time.RFC3339))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.once(agent, change); err != nil {
		return "", err
	}
	if err := w.verifier.Reactivate(ctx, agent); err != nil {
		return "", errStays(agent, "reactivate: %w", err)
	}
	w.installer.log().Info("agent reactivated", "agent", agent, "change", change)
	return fmt.Sprintf("reactivated: the verifier had given it up (%s) since certificates changed at %s",
		state.Event, change.UTC().Format(time.RFC3339)), nil
}

// lastChange is the last change of certificates that the agent's attestation has
// outlived; zero for none.
func (w *watch) lastChange(state probe.Attestation, issued time.Time) (last time.Time) {
	for _, change := range []time.Time{w.changed, issued} {
		if !change.IsZero() && state.WorkedAt(change) && change.After(last) {
			last = change
		}
	}
	return last
}

// once records that an agent is about to be reactivated for a change, and refuses
// where it was before. The lock of this host's installations keeps others out.
func (w *watch) once(agent string, change time.Time) (err error) {
	lock, err := w.installer.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	s, _, err := w.installer.openCurrent()
	if err != nil {
		return err
	}
	defer s.Close()
	done := &reactivations{}
	there, _, err := record.Recall(s.Dir, reactivatedName, done, w.installer.log())
	if err != nil {
		return err
	}
	if !there {
		done = &reactivations{Version: 1}
	}
	if at, found := done.Agents[agent]; found && !at.Before(change) {
		return errStays(agent, "operational_state 7 again: it was reactivated since certificates changed at %s, and is not twice",
			change.UTC().Format(time.RFC3339))
	}
	if done.Agents == nil || len(done.Agents) >= maxReactivated {
		done.Agents = map[string]time.Time{}
	}
	done.Agents[agent] = change
	return record.Write(s.Dir, reactivatedName, done)
}
