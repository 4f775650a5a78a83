// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/alarm"
)

// Observe asks how this host is: what is installed, whether it is served (a handshake
// each, nothing more; Verify asks everything), what the TPM counts. It tells the
// Observer, and logs every alarm that is new or more urgent than before. It renews
// nothing, takes no lock, and takes some seconds where services do not answer.
func (a *Agent) Observe(ctx context.Context) {
	a.setRight(ctx)
	status, err := a.Status()
	if err != nil {
		a.log.Error("what is installed cannot be said", "error", err)
		return
	}
	state := State{Time: a.now(), Status: status, Served: map[string]bool{}, TPM: a.condition(ctx)}
	state.Alarms = mostUrgentFirst(append(a.servedAlarms(ctx, state.Served), status.Alarms...))
	if state.TPM != nil && state.TPM.LockedOut {
		state.Alarms = mostUrgentFirst(append(state.Alarms, Alarm{Kind: AlarmLockout, Level: alarm.Warning,
			Reason: fmt.Sprintf("%d failed authorisations, it refuses more", state.TPM.FailedTries)}))
	}
	if ctx.Err() != nil {
		return // what did not answer was not waited for
	}
	a.raise(state.Alarms)
	if a.Observer != nil {
		a.Observer.Observed(state)
	}
}

// servedAlarms asks what is served. Who does not serve is an alarm the second time: at
// boot, services start after us. Who serves something else by then has to restart; one
// that does not run may have been stopped by somebody.
func (a *Agent) servedAlarms(ctx context.Context, served map[string]bool) (all []Alarm) {
	a.strange = false
	for _, s := range a.sets() {
		findings, err := s.install.Served(ctx, a.emptyItems(s))
		if err != nil {
			a.log.Warn("what is served cannot be asked", "set", s.name, "error", err)
		}
		for _, f := range findings {
			served[f.Certificate] = f.Err == nil
			if f.Err != nil && slices.Contains(a.unserved, f.Certificate) {
				all = append(all, Alarm{Kind: AlarmServed, Level: alarm.Warning, Certificate: f.Certificate, Reason: f.Err.Error()})
				var other *probe.WrongLeafError
				a.strange = a.strange || errors.As(f.Err, &other)
			}
		}
	}
	a.unserved = nil
	for certificate, is := range served {
		if !is {
			a.unserved = append(a.unserved, certificate)
		}
	}
	return all
}

// condition is how the TPM is, nil where it cannot be asked: it may be in use,
// and a renewal will say so.
func (a *Agent) condition(ctx context.Context) *host.Condition {
	prover, err := host.Open(ctx, a.tpm)
	if err != nil {
		return nil
	}
	found, err := prover.Condition(ctx)
	if err = errors.Join(err, prover.Close()); err != nil {
		a.log.Debug("the TPM cannot be asked how it is", "error", err)
		return nil
	}
	return found
}

// A raised alarm is known by what it is about.
type raised struct {
	kind        AlarmKind
	certificate string
}

// raise logs what is new among the alarms, and what is over.
func (a *Agent) raise(all []Alarm) {
	now := map[raised]alarm.Level{}
	for _, one := range all {
		key := raised{one.Kind, one.Certificate}
		now[key] = max(now[key], one.Level)
		if one.Level > a.alarmed[key] {
			a.log.Log(context.Background(), levels[one.Level], "alarm", "event", EventAlarm, "kind", string(one.Kind),
				"level", one.Level, "certificate", one.Certificate, "reason", one.Reason)
		}
	}
	for key := range a.alarmed {
		if now[key] == alarm.None {
			a.log.Info("an alarm is over", "event", EventAlarmOver, "kind", string(key.kind), "certificate", key.certificate)
		}
	}
	a.alarmed = now
}

// levels are those of the log, by the level of an alarm.
var levels = map[alarm.Level]slog.Level{alarm.Info: slog.LevelInfo, alarm.Warning: slog.LevelWarn, alarm.Critical: slog.LevelError}
